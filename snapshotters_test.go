package referrers

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
)

// loaded returns an InitContext of a daemon with the snapshotters, by what each exports.
func loaded(t *testing.T, snapshotters map[string]map[string]string) *plugin.InitContext {
	t.Helper()
	set := plugin.NewPluginSet()
	for name, exports := range snapshotters {
		r := plugin.Registration{Type: plugins.SnapshotPlugin, ID: name, InitFn: func(ic *plugin.InitContext) (any, error) {
			ic.Meta.Exports = exports
			return name, nil
		}}
		p := r.Init(plugin.NewContext(t.Context(), set, nil))
		if err := set.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	return plugin.NewContext(t.Context(), set, nil)
}

// Layers are opened ahead for containerd's own snapshotters alone, and for none of them that is another
// program or fetches layers itself.
func TestSnapshottersThatNeedLayers(t *testing.T) {
	t.Parallel()
	type unpack struct {
		Snapshotter string `toml:"snapshotter"`
	}
	type config struct {
		Unpack []unpack `toml:"unpack_config"`
	}
	usual := map[string]map[string]string{"overlayfs": {"root": "/x"}, "native": {"root": "/y"}, "stargz": {"address": "/run/stargz.sock"}}
	both := config{[]unpack{{"overlayfs"}, {"erofs"}}}
	for name, tc := range map[string]struct {
		loaded map[string]map[string]string
		config any
		yes    []string
		no     []string
	}{
		"as containerd is":                    {usual, &both, []string{"", "overlayfs", "native", "erofs"}, []string{"stargz", "nydus", "windows"}},
		"a remote one is configured":          {usual, &config{[]unpack{{"overlayfs"}, {"stargz"}}}, []string{"overlayfs"}, []string{"", "stargz"}},
		"none is configured":                  {usual, &config{}, []string{"overlayfs"}, []string{""}},
		"a configuration that cannot be read": {usual, make(chan int), []string{"overlayfs"}, []string{""}},
		"another program by the name of one":  {map[string]map[string]string{"overlayfs": {"address": "/run/other.sock"}}, &both, []string{"native"}, []string{"", "overlayfs"}},
		"one that fetches layers itself":      {map[string]map[string]string{"overlayfs": {"enable_remote_snapshot_annotations": "true"}}, &both, []string{"native"}, []string{"", "overlayfs"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := needLayers(loaded(t, tc.loaded), tc.config)
			for _, want := range tc.yes {
				if !slices.Contains(got, want) {
					t.Errorf("%q is not among %q", want, got)
				}
			}
			for _, not := range tc.no {
				if slices.Contains(got, not) {
					t.Errorf("%q is among %q", not, got)
				}
			}
		})
	}
}
