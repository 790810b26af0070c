package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// kubernetesDoc is docs/kubernetes.md.
type kubernetesDoc string

// block is the block of the language that begins with the text.
func (doc kubernetesDoc) block(t *testing.T, language, text string) string {
	t.Helper()
	_, rest, ok := strings.Cut(string(doc), "```"+language+"\n"+text)
	if !ok {
		t.Fatalf("docs/kubernetes.md has no block of %s that begins with %q", language, text)
	}
	rest, _, _ = strings.Cut(rest, "```")
	return text + rest
}

// kubernetesNode is the node of the page: the drop-in beside a configuration of
// its own, and a hosts directory for registry.example.com.
func kubernetesNode(t *testing.T, reg *registry.Registry) map[string]string {
	t.Helper()
	doc := kubernetesDoc(readDoc(t, "kubernetes.md"))
	if imports := doc.block(t, "toml", "imports = "); !strings.Contains(node4, imports) {
		t.Errorf("docs/kubernetes.md imports %s", imports)
	}
	// The mirror of the page is that of the test, and so is the registry.
	hosts := strings.NewReplacer("https://registry.example.com", reg.URL(), "https://mirror.example.com", reg.URL()+"/").
		Replace(doc.block(t, "toml", "server = "))
	return map[string]string{
		"config.toml": "version = 4\n" + node4 + doc.block(t, "toml", criRegistry),
		dropInFile:    readDoc(t, dropInFile),
		"certs.d/registry.example.com/hosts.toml": hosts,
	}
}

const criRegistry = `[plugins."io.containerd.cri.v1.images".registry]`

// CRI reads a hosts directory that config.toml names alone, and none by default or of
// a list, with the plugin as without. Where this fails since a containerd reads more,
// docs/kubernetes.md asks for too much.
func TestKubernetesHostsDirectory(t *testing.T) {
	const certs = "/etc/containerd/certs.d"
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	hosts := filepath.Join(t.TempDir(), "hosts.toml")
	if err := os.WriteFile(hosts, fmt.Appendf(nil, "server = %q\n", reg.URL()), 0o644); err != nil {
		t.Fatal(err)
	}
	one := kubernetesDoc(readDoc(t, "kubernetes.md")).block(t, "toml", criRegistry)
	if !strings.Contains(one, fmt.Sprintf("config_path = %q\n", certs)) {
		t.Errorf("docs/kubernetes.md names another directory: %s", one)
	}
	for _, tc := range []struct {
		name, table string
		read        bool
	}{
		{"default", "", false},
		{"list", strings.ReplaceAll(one, certs, certs+":/etc/docker/certs.d"), false},
		{"one", one, true},
	} {
		for _, with := range []string{"stock", "plugin"} {
			t.Run(tc.name+", "+with, func(t *testing.T) {
				config := active(everything + tc.table)
				if with == "stock" {
					config = daemon.Config{Binary: stockBinary(t), Extra: tc.table}
				}
				// An /etc of the daemon's own, which nobody else sees.
				config.Before = []string{"unshare", "--mount", "sh", "-c", fmt.Sprintf(
					"mount -n -t tmpfs none /etc && mkdir -p %[1]s/registry.example.com && cp %[2]s %[1]s/registry.example.com/ && exec \"$0\" \"$@\"", certs, hosts)}
				d := startDaemon(t, config)
				reg.Reset()
				_, err := criImages(t, d).PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "registry.example.com/app:v1"}})
				if read := err == nil && reg.Count("/v2/app/manifests/v1") > 0; read != tc.read || !read && len(reg.Requests()) > 0 {
					t.Errorf("the hosts directory is read: %t, want %t; the pull ends with %v", read, tc.read, err)
				}
			})
		}
	}
}

// The commands of docs/kubernetes.md print what it prints.
func TestKubernetesCommands(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, daemon.Config{Node: kubernetesNode(t, reg)})
	criPull(t, d, "registry.example.com/app:v1")

	// The node's programs, for this daemon.
	dir := t.TempDir()
	for name, line := range map[string]string{
		"containerd": fmt.Sprintf("exec %s --config %s/config.toml \"$@\"", pluginBinary(t), d.Dir),
		"ctr":        fmt.Sprintf("exec %s --address %s \"$@\"", program(t, "ctr"), d.Address),
		"journalctl": "cat " + d.Dir + "/log",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+line+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	doc, commands := readDoc(t, "kubernetes.md"), 0
	for _, block := range regexp.MustCompile("(?s)```console\n(\\$ .*?)```").FindAllStringSubmatch(doc, -1) {
		for _, step := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			cmd := exec.CommandContext(testContext(t), "sh", "-c", command)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%s: %v", command, err)
			}
			if got, want := spaced(string(out)), spaced(want); got != want {
				t.Errorf("%s prints\n%s\nand docs/kubernetes.md\n%s", command, got, want)
			}
			commands++
		}
	}
	if commands < 4 {
		t.Errorf("%d commands of docs/kubernetes.md were run, want 4 or more", commands)
	}
}

// spaced leaves out times, and the spaces that ctr puts at the end of a line.
func spaced(s string) string {
	return regexp.MustCompile(` +\n`).ReplaceAllString(normal(s)+"\n", "\n")
}

// The last line of a daemon that must not run without its policy is the one that
// docs/kubernetes.md has.
func TestKubernetesRequiredPlugin(t *testing.T) {
	lines := strings.Split(kubernetesDoc(readDoc(t, "kubernetes.md")).block(t, "", "containerd: required plugin"), "\n")
	dropIn := readDoc(t, dropInFile)
	for i, config := range []daemon.Config{
		{Binary: stockBinary(t), Node: map[string]string{dropInFile: dropIn}},
		{Node: map[string]string{dropInFile: dropIn + rule(`require = ["signatures"]`)}},
		{Node: map[string]string{dropInFile: strings.Replace(dropIn, "disabled_plugins = ", "# ", 1)}},
	} {
		config.Node["config.toml"] = "version = 4\n" + node4
		d, err := daemon.Start(testContext(t), config)
		if err == nil {
			t.Errorf("the daemon starts: %v", d.Stop())
			continue
		}
		if last := lastLine(err.Error()); last != lines[i] {
			t.Errorf("the daemon's last line is\n%s\nand in docs/kubernetes.md\n%s", last, lines[i])
		}
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// docs/kubernetes.md names every key that makes CRI pull by itself, and one line
// of the log as it is.
func TestKubernetesFallbackKeys(t *testing.T) {
	doc := kubernetesDoc(readDoc(t, "kubernetes.md"))
	line := strings.TrimSpace(doc.block(t, "", "CRI pulls images by itself"))
	found := false
	for _, f := range fallbacks {
		if !strings.Contains(string(doc), "`"+f.name) {
			t.Errorf("docs/kubernetes.md does not name %s", f.name)
		}
		found = found || line == fallback+f.says
	}
	if !found {
		t.Errorf("no key gives the line of docs/kubernetes.md: %s", line)
	}
}

// What the kubelet puts into a pod's event has the rule's words, and the
// sandbox's image is pulled by the same rules.
func TestKubernetesRefusal(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	if err := f.PushImage(testContext(t), reg, "plain", "v1"); err != nil {
		t.Fatal(err)
	}
	node := kubernetesNode(t, reg)
	node[dropInFile] += rule(`required = ["signatures"]`)
	d := startDaemon(t, daemon.Config{Node: node})
	_, err := criImages(t, d).PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "registry.example.com/plain:v1"}})
	wantError(t, err, strings.TrimSpace(kubernetesDoc(readDoc(t, "kubernetes.md")).block(t, "", "failed to pull and unpack")))
}
