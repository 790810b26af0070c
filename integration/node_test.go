package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

const dropInFile = "conf.d/transfer-referrers.toml"

// version3 is what installers of Kubernetes write since containerd v2.0.
const version3 = `version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
imports = ["/etc/containerd/conf.d/*.toml"]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "registry.k8s.io/pause:3.10.1"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    SystemdCgroup = true
`

// stockBinary is containerd without the plugin.
func stockBinary(t *testing.T) string { return program(t, "stock/containerd") }

// pluginBinary is containerd with it.
func pluginBinary(t *testing.T) string { return program(t, "containerd") }

// program is what `make test-integration` builds.
func program(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("TRANSFER_REFERRERS_BIN")
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); dir == "" || err != nil {
		t.Fatalf("%s is not built in TRANSFER_REFERRERS_BIN=%q; run `make test-integration`", name, dir)
	}
	return path
}

// restart goes on with another configuration of the same node.
func restart(t *testing.T, d *daemon.Daemon, config daemon.Config) {
	t.Helper()
	if err := d.Reconfigure(testContext(t), config); err != nil {
		t.Fatal(err)
	}
}

// defaultConfig is what a containerd prints as its configuration.
func defaultConfig(t *testing.T, binary string) string {
	t.Helper()
	out, err := exec.CommandContext(testContext(t), binary, "config", "default").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func criPull(t *testing.T, d *daemon.Daemon, image string) string {
	t.Helper()
	pulled, err := criImages(t, d).PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}})
	if err != nil {
		t.Fatal(err)
	}
	return pulled.ImageRef
}

// The drop-in switches everything on, beside whatever configuration a node has.
func TestDropIn(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	dropIn := readDoc(t, dropInFile)
	const devmapper = "disabled_plugins = [\"io.containerd.snapshotter.v1.devmapper\"]\n"
	for _, tc := range []struct {
		name, config, dropIn, other string
		disabled                    bool // devmapper, by the node's other files
	}{
		{"stock configuration", defaultConfig(t, stockBinary(t)), dropIn, "", false},
		{"version 3", version3, dropIn, "", false},
		{"drop-in of version 3", "version = 4\n" + node4, strings.Replace(dropIn, "version = 4", "version = 3", 1), "", false},
		{"other plugins disabled", "version = 4\n" + devmapper + node4, dropIn, "", true},
		{"another drop-in", "version = 4\n" + node4, dropIn, "version = 4\n" + devmapper, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string]string{"config.toml": tc.config, dropInFile: tc.dropIn}
			if tc.other != "" {
				files["conf.d/zzz.toml"] = tc.other
			}
			d := startDaemon(t, daemon.Config{Node: files})
			if n := len(d.LogLines("referrers are active: no rules configured, built-in rule: ")); n != 1 {
				t.Fatalf("the plugin is not active: %q", d.LogLines("referrers"))
			}
			if lines := d.LogLines(fallback); len(lines) != 0 {
				t.Errorf("CRI pulls by itself: %q", lines)
			}
			criPull(t, d, image)
			wantNames(t, f, criStored(t, d, image), fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation)
			if loads := len(d.LogLines("\"loading plugin\" id=io.containerd.snapshotter.v1.devmapper")) > 0; loads == tc.disabled {
				t.Errorf("devmapper is loaded: %t, and disabled: %t", loads, tc.disabled)
			}
		})
	}
}

// node4 says where a daemon of version 4 lives and what it imports.
const node4 = `root = "/var/lib/containerd"
state = "/run/containerd"
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.server.v1.grpc"]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.server.v1.ttrpc"]
  address = "/run/containerd/containerd.sock.ttrpc"
`

// A config.toml without imports reads no drop-in.
func TestDropInNeedsImports(t *testing.T) {
	config := strings.Replace(node4, "imports = ", "# ", 1)
	d := startDaemon(t, daemon.Config{Node: map[string]string{"config.toml": "version = 4\n" + config, dropInFile: readDoc(t, dropInFile)}})
	if len(d.LogLines("referrers are not active: to have pulls bring them")) != 1 {
		t.Errorf("the drop-in was read without being imported: %q", d.LogLines("referrers"))
	}
}

// The rules of the last file stand alone: containerd does not put them together.
func TestRulesOfTwoFiles(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	table := "version = 4\n[plugins.\"io.containerd.transfer.v1.referrers\"]\n"
	d := startDaemon(t, daemon.Config{Node: map[string]string{
		"config.toml":   "version = 4\n" + node4,
		dropInFile:      readDoc(t, dropInFile),
		"conf.d/1.toml": table + rule(`artifact_types = ["all"]`, `required = ["application/vnd.example.approval"]`),
		"conf.d/2.toml": table + rule(`artifact_types = ["vex/openvex"]`),
	}})
	criPull(t, d, image)
	wantNames(t, f, criStored(t, d, image), fixture.VEX)
}
