package referrers

import (
	"slices"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/pelletier/go-toml/v2"
)

// layerSnapshotters are containerd's own that need the content of every layer.
var layerSnapshotters = []string{"blockfile", "btrfs", "devmapper", "erofs", "native", "overlayfs", "zfs"}

// needLayers returns the snapshotters that are known to need the content of every layer, "" among
// them where that holds of all that the local transfer plugin may take when a client names
// none. config is that plugin's, as it initialized it.
func needLayers(ic *plugin.InitContext, config any) []string {
	var out []string
	for _, name := range layerSnapshotters {
		if !isRemote(ic, name) {
			out = append(out, name)
		}
	}
	unpack := configured(config)
	remote := func(name string) bool { return !slices.Contains(out, name) }
	if len(unpack) > 0 && !slices.ContainsFunc(unpack, remote) {
		out = append(out, "")
	}
	return out
}

// configured returns the snapshotters of the local transfer plugin's unpack_config; none where
// they cannot be read. The type of config is containerd's own.
func configured(config any) []string {
	text, err := toml.Marshal(config)
	if err != nil {
		return nil
	}
	var read struct {
		Unpack []struct {
			Snapshotter string `toml:"snapshotter"`
		} `toml:"unpack_config"`
	}
	if err := toml.Unmarshal(text, &read); err != nil {
		return nil
	}
	var out []string
	for _, u := range read.Unpack {
		out = append(out, u.Snapshotter)
	}
	return out
}

// isRemote reports whether a snapshotter's plugin is another program's, whatever its name, or
// says that it fetches layers itself.
func isRemote(ic *plugin.InitContext, name string) bool {
	p := ic.Plugins().Get(plugins.SnapshotPlugin, name)
	if p == nil {
		return false
	}
	_, proxy := p.Meta.Exports["address"]
	return proxy || p.Meta.Exports["enable_remote_snapshot_annotations"] == "true"
}
