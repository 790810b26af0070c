package referrers

import (
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/pelletier/go-toml/v2"
)

const criImagesID = "images"

// criImages is what CRI's image service decides by whether it pulls through the
// transfer service. The type of its configuration is internal to containerd, its
// keys are not. One that a containerd lacks stays nil and says nothing.
type criImages struct {
	// UseLocalImagePull is the decision itself: CRI sets it where one of the
	// others asks for it.
	UseLocalImagePull          bool  `toml:"use_local_image_pull"`
	DisableSnapshotAnnotations *bool `toml:"disable_snapshot_annotations"`
	DiscardUnpackedLayers      *bool `toml:"discard_unpacked_layers"`
	MaxConcurrentDownloads     *int  `toml:"max_concurrent_downloads"`
	ImagePullWithSyncFs        *bool `toml:"image_pull_with_sync_fs"`
	Registry                   struct {
		Mirrors map[string]any `toml:"mirrors"`
		Configs map[string]any `toml:"configs"`
		Auths   map[string]any `toml:"auths"`
		// Headers are sent to all registries.
		Headers map[string][]string `toml:"headers"`
	} `toml:"registry"`
}

// warnOfCRI says which keys make CRI pull images by itself: no referrer comes
// with those, and no rule is asked. It says which headers keep CRI's pulls from asking
// for referrers. It needs CRI's image service initialized, and says nothing if there is
// none.
func warnOfCRI(ic *plugin.InitContext) {
	p := ic.Plugins().Get(plugins.CRIServicePlugin, criImagesID)
	if p == nil || p.Err() != nil {
		return
	}
	var config criImages
	b, err := toml.Marshal(p.Config)
	if err == nil {
		err = toml.Unmarshal(b, &config)
	}
	if err != nil {
		log.G(ic.Context).WithError(err).Warn("it cannot be told whether CRI pulls images by itself, without referrers: see docs/kubernetes.md for how to check")
		return
	}
	for _, reason := range config.reasons(runtime.GOOS) {
		log.G(ic.Context).Warnf("CRI pulls images by itself, without referrers and past every rule, because of %s", reason)
	}
	for _, lost := range config.lostHeaders() {
		log.G(ic.Context).Warn(lost)
	}
}

// lostHeaders are those that containerd's message of a source does not carry as CRI hands
// them over, each with its remedy; none where CRI pulls by itself.
func (c *criImages) lostHeaders() []string {
	if c.UseLocalImagePull {
		return nil
	}
	table := fmt.Sprintf("[plugins.%q.registry.headers]", plugins.CRIServicePlugin.String()+"."+criImagesID)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(c.Registry.Headers)) {
		canonical := http.CanonicalHeaderKey(name)
		if n := len(c.Registry.Headers[name]); n > 1 {
			out = append(out, fmt.Sprintf("registries get only the first of the %d values of CRI's header %s: write one value, with commas, in %s", n, name, table))
		}
		if name != canonical {
			out = append(out, fmt.Sprintf("CRI's images are pulled without referrers, and refused where a rule requires them, because of the header %s, whose name is not in canonical form: write %s in %s", name, canonical, table))
		}
	}
	return out
}

// reasons are the keys that make CRI pull by itself, each with its remedy, as
// CheckLocalImagePullConfigs of containerd has them; nil where it does not.
func (c *criImages) reasons(goos string) []string {
	if !c.UseLocalImagePull {
		return nil
	}
	var out []string
	add := func(key, remedy string) {
		out = append(out, fmt.Sprintf("%s in [plugins.%q]: %s", key, plugins.CRIServicePlugin.String()+"."+criImagesID, remedy))
	}
	const hosts = "remove it, and write a hosts directory that registry.config_path names"
	// Annotations are CRI's own doing only on Windows, where they are the default.
	if v := c.DisableSnapshotAnnotations; v != nil && *v == (goos == "windows") {
		add(fmt.Sprintf("disable_snapshot_annotations = %t", *v), "remove it; snapshotters that need annotations ask for them")
	}
	if v := c.DiscardUnpackedLayers; v != nil && *v {
		add("discard_unpacked_layers = true", "remove it")
	}
	if len(c.Registry.Mirrors) > 0 {
		add("registry.mirrors", hosts)
	}
	switch { // CRI adds the auths to the configs
	case len(c.Registry.Auths) > 0:
		add("registry.auths", "remove it, and give credentials as pull secrets or by the kubelet's credential providers")
	case len(c.Registry.Configs) > 0:
		add("registry.configs", hosts)
	}
	if v := c.MaxConcurrentDownloads; v != nil && *v != 3 {
		add(fmt.Sprintf("max_concurrent_downloads = %d", *v), fmt.Sprintf("remove it, and set it in [plugins.%q.local]", plugins.TransferPlugin.String()+"."+transferID))
	}
	if v := c.ImagePullWithSyncFs; v != nil && *v {
		add("image_pull_with_sync_fs = true", "remove it")
	}
	if len(out) == 0 {
		add("use_local_image_pull = true", "remove it")
	}
	return out
}
