package integration

import (
	"fmt"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

const fallback = "CRI pulls images by itself, without referrers and past every rule, because of "

// fallbacks are the keys of [plugins."io.containerd.cri.v1.images"] that make CRI
// pull past the transfer service, and what the log says of each.
var fallbacks = []struct{ name, toml, says string }{
	{"use_local_image_pull", "use_local_image_pull = true",
		`use_local_image_pull = true in [plugins."io.containerd.cri.v1.images"]: remove it`},
	{"disable_snapshot_annotations", "disable_snapshot_annotations = false",
		`disable_snapshot_annotations = false in [plugins."io.containerd.cri.v1.images"]: remove it; snapshotters that need annotations ask for them`},
	{"discard_unpacked_layers", "discard_unpacked_layers = true",
		`discard_unpacked_layers = true in [plugins."io.containerd.cri.v1.images"]: remove it`},
	{"registry.mirrors", "registry.mirrors.\"docker.io\".endpoint = [\"https://mirror.example.com\"]",
		`registry.mirrors in [plugins."io.containerd.cri.v1.images"]: remove it, and write a hosts directory that registry.config_path names`},
	{"registry.configs", "registry.configs.\"registry.example.com\".auth.username = \"user\"",
		`registry.configs in [plugins."io.containerd.cri.v1.images"]: remove it, and write a hosts directory that registry.config_path names`},
	{"registry.auths", "registry.auths.\"https://registry.example.com\".username = \"user\"",
		`registry.auths in [plugins."io.containerd.cri.v1.images"]: remove it, and give credentials as pull secrets or by the kubelet's credential providers`},
	{"max_concurrent_downloads", "max_concurrent_downloads = 5",
		`max_concurrent_downloads = 5 in [plugins."io.containerd.cri.v1.images"]: remove it, and set it in [plugins."io.containerd.transfer.v1.referrers".local]`},
	{"image_pull_with_sync_fs", "image_pull_with_sync_fs = true",
		`image_pull_with_sync_fs = true in [plugins."io.containerd.cri.v1.images"]: remove it`},
}

// criConfig is a daemon whose plugin is active, with TOML in the table of CRI's
// image service.
func criConfig(toml string) daemon.Config {
	return active("[plugins.\"io.containerd.cri.v1.images\"]\n" + toml)
}

// unquoted is a line of the log as it was written: text in logfmt is quoted.
func unquoted(line string) string { return strings.ReplaceAll(line, `\"`, `"`) }

// Every key that makes CRI pull by itself is named at start, with the remedy.
func TestCRIFallbackIsNamed(t *testing.T) {
	for _, tc := range fallbacks {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, criConfig(tc.toml))
			lines := d.LogLines(fallback)
			if len(lines) != 1 {
				t.Fatalf("%d lines of the log say what makes CRI pull by itself, want 1: %q", len(lines), lines)
			}
			if want := fmt.Sprintf("level=warning msg=\"%s%s\"", fallback, tc.says); !strings.HasSuffix(unquoted(lines[0]), want) {
				t.Errorf("the log says\n%s\nwant\n%s", unquoted(lines[0]), want)
			}
		})
	}
}

// Several keys are several lines, and the pull is what the lines say.
func TestCRIFallbackPull(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	for _, tc := range []struct {
		name      string
		config    daemon.Config
		lines     int
		referrers int
	}{
		{"none", criConfig(""), 0, 3},
		{"two", criConfig("max_concurrent_downloads = 5\ndiscard_unpacked_layers = true\n"), 2, 0},
		// A daemon without the plugin's help is not told of it.
		{"inert", daemon.Config{Plugin: "[plugins.\"io.containerd.cri.v1.images\"]\nmax_concurrent_downloads = 5\n"}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, tc.config)
			if lines := d.LogLines(fallback); len(lines) != tc.lines {
				t.Errorf("%d lines of the log say what makes CRI pull by itself, want %d: %q", len(lines), tc.lines, lines)
			}
			if _, err := criImages(t, d).PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}}); err != nil {
				t.Fatal(err)
			}
			if n := len(criStored(t, d, image).Referrers); n != tc.referrers {
				t.Errorf("%d referrers came with the pull, want %d", n, tc.referrers)
			}
		})
	}
}

// A registry header of CRI's that its message loses is named at start. Its pulls go on
// without referrers, in requests that have the header, where no rule requires any.
func TestCRIHeaders(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	const (
		lower  = "[plugins.\"io.containerd.cri.v1.images\".registry.headers]\nx-node = [\"node-7\"]\n"
		atAll  = `CRI's images are pulled without referrers, and refused where a rule requires them, because of the header x-node, whose name is not in canonical form: write X-Node in [plugins."io.containerd.cri.v1.images".registry.headers]`
		loses  = "containerd's message of a source loses the registry header x-node, whose name is not in canonical form: write X-Node in containerd's config.toml"
		refuse = `cannot be asked for, and rule 1, repository "**" requires signatures: ` + loses
	)
	signed := rule(`artifact_types = ["all"]`, `required = ["signatures"]`)
	for _, tc := range []struct {
		name, plugin string
		lost         bool
		refused      bool
		referrers    int
	}{
		{"canonical", signed + strings.Replace(lower, "x-node", "X-Node", 1), false, false, 5},
		{"lost", everything + lower, true, false, 0},
		{"lost and required", signed + lower, true, true, 0},
		{"lost and required elsewhere", strings.Replace(signed, `"**"`, `"registry.example.com/**"`, 1) + everything + lower, true, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, active(tc.plugin))
			if lines := d.LogLines("not in canonical form"); tc.lost != (len(lines) == 1 && strings.Contains(unquoted(lines[0]), `level=warning msg="`+atAll)) {
				t.Errorf("the log says at start %q", lines)
			}
			before := len(reg.Requests())
			_, err := criImages(t, d).PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}})
			if tc.refused {
				wantError(t, err, image, refuse)
				wantClean(t, d)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := len(criStored(t, d, image).Referrers); n != tc.referrers {
				t.Errorf("%d referrers came with the pull, want %d", n, tc.referrers)
			}
			for _, r := range reg.Requests()[before:] {
				if r.Header.Get("X-Node") != "node-7" {
					t.Errorf("without the configured header: %s", r)
				}
			}
			if lines := d.LogLines(`msg="referrers: the image is pulled without, since they cannot be asked for"`); tc.lost != (len(lines) == 1) || tc.lost && !strings.Contains(unquoted(lines[0]), loses) {
				t.Errorf("the log says at the pull %q", lines)
			}
		})
	}
}
