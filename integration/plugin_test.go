package integration

import (
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// The plugin is active where both stock plugins are disabled, and changes nothing where
// none is. The log says in one line which, and what to write.
func TestDisabledPlugins(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	for _, tc := range []struct {
		name      string
		disabled  []string
		referrers int
		says      string
	}{
		{"none", nil, 0, `referrers are not active: to have pulls bring them, add \"io.containerd.transfer.v1.local\" and \"io.containerd.grpc.v1.transfer\" to disabled_plugins`},
		{"both", daemon.Active, 5, "referrers are active: rules: 1 (require: 0, verify with enforce: 0, verify with warn: 0, deny: 0)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, daemon.Config{Disabled: tc.disabled, Plugin: everything})
			// Before any pull: what is said at start must do.
			if lines := d.LogLines("referrers are "); len(lines) != 1 || !strings.Contains(lines[0], tc.says) {
				t.Errorf("the log says\n%s\nwant one line with\n%s", strings.Join(lines, "\n"), tc.says)
			}
			if lines := d.LogLines("disabled_plugins"); tc.name == "both" && len(lines) != 0 || tc.name != "both" && len(lines) != 1 {
				t.Errorf("%d lines of the log say what to write: %q", len(lines), lines)
			}
			wantLoaded(t, d, "io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri")

			image := reg.Host + "/app:v1"
			pull(t, d, image)
			if n := len(ls(t, d, image).Referrers); n != tc.referrers {
				t.Errorf("%d referrers came with a pull by ctr, want %d", n, tc.referrers)
			}
			criPull(t, d, image)
			if n := len(criStored(t, d, image).Referrers); n != tc.referrers {
				t.Errorf("%d referrers came with a pull by CRI, want %d", n, tc.referrers)
			}
			// As a Go client does that selects nothing.
			ctr(t, d, "images", "rm", "--sync", image)
			if err := clientPull(t, d, image, nil); err != nil {
				t.Fatal(err)
			}
			if n := len(ls(t, d, image).Referrers); n != tc.referrers {
				t.Errorf("%d referrers came with a pull by a client, want %d", n, tc.referrers)
			}
			wantClean(t, d)
		})
	}
}

const (
	transferAlone = `every transfer is refused, since of the two stock plugins only "io.containerd.transfer.v1.local" is disabled: add "io.containerd.grpc.v1.transfer" to disabled_plugins in containerd's config.toml`
	serviceAlone  = `referrers are not active, since of the two stock plugins only "io.containerd.grpc.v1.transfer" is disabled: add "io.containerd.transfer.v1.local" to disabled_plugins in containerd's config.toml`
)

// wantAtStart fails unless one line of the log says so as an error, and the service plugin
// failed with it.
func wantAtStart(t *testing.T, d *daemon.Daemon, says string) {
	t.Helper()
	var errs, failed int
	for line := range strings.Lines(unquoted(d.Log())) {
		if strings.Contains(line, says) && strings.Contains(line, "level=error") {
			errs++
		}
		if strings.Contains(line, says) && strings.Contains(line, `msg="failed to load plugin"`) && strings.Contains(line, "id=io.containerd.grpc.v1.transfer-referrers") {
			failed++
		}
	}
	if errs != 1 || failed != 1 {
		t.Errorf("%d lines of the log say as an error, and %d of a plugin that failed, want 1 each:\n%s", errs, failed, says)
	}
	if lines := d.LogLines("referrers are active"); len(lines) != 0 {
		t.Errorf("the log says that the plugin is active: %q", lines)
	}
}

// Where the stock service would lose what a client sent, no rule could be relied on: nothing
// is transferred, whoever asks, and each is told what to write.
func TestOnlyTheTransferPluginIsDisabled(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	for name, plugin := range map[string]string{"rules": everything, "no rules": ""} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, daemon.Config{Disabled: []string{daemon.StockTransfer}, Plugin: plugin, MayFail: true})
			wantAtStart(t, d, transferAlone)
			wantLoaded(t, d, "io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri")

			ctr(t, d, "images", "pull", "--local", "--platform", "linux/amd64", image) // not through the transfer service
			before := len(reg.Requests())
			archive := filepath.Join(t.TempDir(), "image.tar")
			for _, args := range [][]string{
				{"images", "pull", image},
				{"images", "push", image},
				{"images", "export", "--platform", "linux/amd64", archive, image},
				{"referrers", "fetch", image},
				{"referrers", "explain", image},
			} {
				_, err := d.Ctr(testContext(t), args...)
				wantError(t, err, transferAlone)
			}
			wantError(t, clientPull(t, d, image, &api.Selection{ArtifactTypes: []string{"all"}}), transferAlone)
			_, err := criImages(t, d).PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}})
			wantError(t, err, transferAlone)
			if requests := reg.Requests()[before:]; len(requests) != 0 {
				t.Errorf("the registry was asked: %v", requests)
			}
			wantClean(t, d)
		})
	}
}

// Without the stock service and without the plugin there is no transfer service. CRI pulls
// through the stock transfer plugin, past every rule, so that a daemon with rules ends.
func TestOnlyTheServiceIsDisabled(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, daemon.Config{Disabled: []string{daemon.StockService}, MayFail: true})
	wantAtStart(t, d, serviceAlone)
	_, err := d.Ctr(testContext(t), "images", "pull", image)
	wantError(t, err, "unknown service containerd.services.transfer.v1.Transfer")
	criPull(t, d, image)
	if n := len(criStored(t, d, image).Referrers); n != 0 {
		t.Errorf("%d referrers came with a pull by CRI", n)
	}

	for name, plugin := range map[string]string{"rules": rule(`required = ["signatures"]`), "a table that cannot be read": "[[plugins.\"io.containerd.transfer.v1.referrers\".rule]]\n"} {
		d, err := daemon.Start(testContext(t), daemon.Config{Disabled: []string{daemon.StockService}, Plugin: plugin, MayFail: true})
		if err == nil {
			t.Errorf("%s: the daemon starts: %v", name, d.Stop())
			continue
		}
		if last := unquoted(lastLine(err.Error())); !strings.HasSuffix(last, "io.containerd.grpc.v1.transfer-referrers: "+serviceAlone) {
			t.Errorf("%s: the daemon's last line is %s", name, last)
		}
	}
}

// A source of Go's that selects nothing is for every daemon, stock containerd
// included. One that selects is refused there.
func TestSourceThatSelectsNothing(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	both(t, func(t *testing.T, d *daemon.Daemon, active bool) {
		image := reg.Host + "/app:v1"
		if err := clientPull(t, d, image, nil); err != nil {
			t.Fatal(err)
		}
		wantReferrers(t, d, image, active)
		err := clientPull(t, d, image, &api.Selection{ArtifactTypes: []string{"all"}})
		if active && err != nil || !active && (err == nil || !strings.Contains(err.Error(), "transferreferrers.v1.Source")) {
			t.Errorf("a pull that selects: %v", err)
		}
	})
}

// wantLoaded fails where a plugin of the daemon is not there, or did not load.
func wantLoaded(t *testing.T, d *daemon.Daemon, names ...string) {
	t.Helper()
	plugins, err := d.Client.IntrospectionService().Plugins(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	loaded := map[string]bool{}
	for _, p := range plugins.Plugins {
		loaded[p.Type+"."+p.ID] = p.InitErr == nil
	}
	for _, name := range names {
		if !loaded[name] {
			t.Errorf("%s is not loaded", name)
		}
	}
}

// A configuration that cannot be meant stops the plugin, and the log names the
// key and the remedy. The daemon serves on without a transfer service: no image
// comes in that a rule might have refused.
func TestConfigurationThatCannotBeMeant(t *testing.T) {
	for _, tc := range []struct{ name, plugin, says string }{
		{"unknown key", "max_refs = 3\n", "unknown key max_refs: write one of cosign_tags, "},
		{"unknown key in a rule", rule(`require = ["signatures"]`), "rule 1: unknown key require: write one of artifact_types, attested, deny, depth, on_error, prune, repositories, required, signed, verify, or remove it"},
		{"glob", strings.ReplaceAll(everything, `"**"`, `"https://registry.example.com/**"`), `rule 1: repositories: \"https://registry.example.com/**\" has a scheme; leave it out`},
		{"size", `max_blob_size = "32 megs"`, `\"32 megs\" is no size: write a whole number and B, KiB, MiB, GiB or TiB`},
		{"duration", `timeout = "30 seconds"`, `\"30 seconds\" is no duration: write a number and a unit`},
		{"depth", rule("depth = 0"), "rule 1: key depth = 0: write 1 to 8, or leave it out for 2"},
		{"local", "[plugins.\"io.containerd.transfer.v1.referrers\".local]\nmax_downloads = 3\n", "table local: unknown key max_downloads: write one of check_platform_supported, "},
		{"local, in another case", "[plugins.\"io.containerd.transfer.v1.referrers\".local]\nMax_Concurrent_Downloads = 3\n", "table local: unknown key Max_Concurrent_Downloads: write"},
		{"local, of another type", "[plugins.\"io.containerd.transfer.v1.referrers\".local]\nmax_concurrent_downloads = \"3\"\n", `table local: key max_concurrent_downloads = \"3\": write a number`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, daemon.Config{
				Disabled: daemon.Active,
				Plugin:   tc.plugin,
				MayFail:  true, // CRI as well, which needs a transfer plugin
			})
			if len(d.LogLines(tc.says)) == 0 {
				t.Errorf("the log does not say %q: %q", tc.says, d.LogLines("failed to load plugin"))
			}
			if lines := d.LogLines("referrers are active"); len(lines) != 0 {
				t.Errorf("the log says that a plugin which did not load is active: %q", lines)
			}
			if _, err := d.Ctr(testContext(t), "images", "pull", "127.0.0.1:1/app:v1"); err == nil || !strings.Contains(err.Error(), "unknown service") {
				t.Errorf("the transfer service is served all the same: %v", err)
			}
		})
	}
}

// The settings of the wrapped local plugin reach it.
func TestLocalSettings(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything+`
  [plugins."io.containerd.transfer.v1.referrers".local]
    max_concurrent_downloads = 1
    [[plugins."io.containerd.transfer.v1.referrers".local.unpack_config]]
      platform = "linux/amd64"
      snapshotter = "native"
`))
	image := reg.Host + "/app:v1"
	pull(t, d, image, "--snapshotter", "native")
	out, err := d.Ctr(testContext(t), "snapshots", "--snapshotter", "native", "ls")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "Committed") {
		t.Errorf("the image was not unpacked into the native snapshotter: %s", out)
	}
	wantReferrers(t, d, image, true)
}

// Configuration files of version 3 work as well: operators have them.
func TestConfigurationVersion3(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, daemon.Config{Disabled: daemon.Active, Plugin: everything, Version: 3})
	image := reg.Host + "/app:v1"
	pull(t, d, image)
	wantReferrers(t, d, image, true)
}
