package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// nobody is an ordinary user.
const nobody = 65534

// ordinary is the daemon of docs/rootless.md, run by an ordinary user.
func ordinary(t *testing.T, before ...string) daemon.Config {
	t.Helper()
	_, config, _ := strings.Cut(readDoc(t, "rootless.md"), "```toml\n")
	config, _, _ = strings.Cut(config, "```")
	// The harness puts a node's paths into its directory.
	config = strings.NewReplacer(
		"/home/user/.local/share/containerd", "/var/lib/containerd",
		"/run/user/1000/containerd", "/run/containerd",
	).Replace(config)
	return daemon.Config{UID: nobody, Before: before, Node: map[string]string{"config.toml": config}}
}

// rootlessDoc is the text between two others of docs/rootless.md.
func rootlessDoc(t *testing.T, from, to string) string {
	t.Helper()
	_, text, ok := strings.Cut(readDoc(t, "rootless.md"), from)
	if !ok {
		t.Fatalf("docs/rootless.md does not say %q", from)
	}
	text, _, _ = strings.Cut(text, to)
	return text
}

// namespaced is the documentation's command before the daemon's own.
func namespaced(t *testing.T) []string {
	t.Helper()
	before := append([]string{"unshare"}, strings.Fields(rootlessDoc(t, "$ unshare ", " containerd "))...)
	probe := exec.CommandContext(testContext(t), before[0], append(before[1:], "true")...)
	probe.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("this kernel gives ordinary users no namespaces: %v: %s", err, out)
	}
	return before
}

// An ordinary user's daemon in namespaces of its own unpacks images and brings
// their referrers, with the configuration that the documentation has.
func TestRootless(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, ordinary(t, namespaced(t)...))
	pull(t, d, image, "--snapshotter", "native")
	wantNames(t, f, ls(t, d, image), fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation)
	out, err := d.Ctr(testContext(t), "snapshots", "--snapshotter", "native", "ls")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "Committed") {
		t.Errorf("the image was not unpacked: %s", out)
	}
	wantClean(t, d)

	pushImageOf(t, reg, "other", 1000)
	_, err = d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", "--snapshotter", "native", reg.Host+"/other:v1")
	wantError(t, err, strings.Split(rootlessDoc(t, "another user fails:\n\n```\n", "\n```"), " … ")...)
}

// Without them nothing can be unpacked, with the plugin as without, and the error
// is the one that the documentation has.
func TestRootlessWithoutNamespaces(t *testing.T) {
	says := rootlessDoc(t, "containerd's own error:\n\n```\n", "\n```")
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	for name, before := range map[string][]string{
		"no namespace":   nil,
		"user namespace": slices.DeleteFunc(namespaced(t), func(s string) bool { return s == "--mount" }),
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, ordinary(t, before...))
			args := []string{"images", "pull", "--platform", "linux/amd64", "--snapshotter", "native", image}
			_, err := d.Ctr(testContext(t), args...)
			wantError(t, err, says)
			collect(t, d)
			if left := contents(t, d); len(left) > 0 {
				t.Errorf("the pull left %v", left)
			}
			_, err = d.Ctr(testContext(t), slices.Insert(args, 2, "--local")...)
			wantError(t, err, says)
		})
	}
}

// pushImageOf pushes an image with one file, of the user.
func pushImageOf(t *testing.T, reg *registry.Registry, repository string, uid int) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Uid: uid, Gid: uid}), w.Close()); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer.Bytes())}},
	})
	if err != nil {
		t.Fatal(err)
	}
	push := func(mediaType string, data []byte) ocispec.Descriptor {
		dgst, err := reg.PushBlob(testContext(t), repository, data)
		if err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(data))}
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    push(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{push(ocispec.MediaTypeImageLayer, layer.Bytes())},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.PushManifest(testContext(t), repository, "v1", ocispec.MediaTypeImageManifest, manifest); err != nil {
		t.Fatal(err)
	}
}
