package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

// hostDir returns the directory of the registry's hosts.toml, "" where there is none.
func hostDir(options config.HostOptions, registry string) (string, error) {
	if options.HostDir == nil {
		return "", nil
	}
	dir, err := options.HostDir(registry)
	if err != nil && !errdefs.IsNotFound(err) {
		return "", err
	}
	return dir, nil
}

// fingerprint tells one configuration in a hosts directory from another: by the content of
// hosts.toml, of every certificate and key in the directory, and of those that hosts.toml
// names elsewhere (containerd's docs/hosts.md). A file that cannot be read counts with its
// error: it is for containerd to report.
func fingerprint(dir string) string {
	if dir == "" {
		return ""
	}
	hash := sha256.New()
	add := func(name string, data []byte, err error) {
		fmt.Fprintf(hash, "%q %d %v\n", name, len(data), err)
		hash.Write(data)
	}
	hosts, err := os.ReadFile(filepath.Join(dir, "hosts.toml"))
	add("hosts.toml", hosts, err)
	files := namedFiles(dir, hosts)
	entries, err := os.ReadDir(dir)
	add(dir, nil, err)
	for _, entry := range entries {
		switch filepath.Ext(entry.Name()) {
		case ".crt", ".cert", ".key":
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	slices.Sort(files)
	for _, name := range slices.Compact(files) {
		data, err := os.ReadFile(name)
		add(name, data, err)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// namedFiles returns the certificates and keys that hosts.toml names: every text below a
// key "ca" or "client".
func namedFiles(dir string, hosts []byte) []string {
	var tree map[string]any
	if toml.Unmarshal(hosts, &tree) != nil {
		return nil
	}
	var files []string
	var walk func(value any, named bool)
	walk = func(value any, named bool) {
		switch v := value.(type) {
		case map[string]any:
			for key, child := range v {
				walk(child, named || key == "ca" || key == "client")
			}
		case []any:
			for _, child := range v {
				walk(child, named)
			}
		case string:
			if !named {
				return
			}
			if !filepath.IsAbs(v) {
				v = filepath.Join(dir, v)
			}
			files = append(files, v)
		}
	}
	walk(tree, false)
	return files
}
