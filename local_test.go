package referrers

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/pelletier/go-toml/v2"
)

// localConfig is the configuration of containerd's local transfer plugin with the
// table laid over it, as `containerd config default` would print it.
func localConfig(t *testing.T, text string) (map[string]any, error) {
	t.Helper()
	c, err := load(t, text)
	if err != nil {
		return nil, err
	}
	registered := registry.Graph(func(*plugin.Registration) bool { return false })
	i := slices.IndexFunc(registered, func(r plugin.Registration) bool {
		return r.Type == plugins.TransferPlugin && r.ID == stockTransferID
	})
	config := copyConfig(registered[i].Config)
	if _, err := decode(c.Local, config); err != nil {
		return nil, err
	}
	printed, err := toml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	return out, toml.Unmarshal(printed, &out)
}

// What is written reaches the wrapped plugin, and its defaults stay where nothing is;
// the registered configuration, which others read too, is not written to.
func TestLocalTable(t *testing.T) {
	t.Parallel()
	before, err := localConfig(t, "")
	if err != nil {
		t.Fatal(err)
	}
	const written = `
[local]
max_concurrent_downloads = 9
check_platform_supported = true
[[local.unpack_config]]
platform = "linux/amd64"
snapshotter = "native"
layer_types = ["a/b", "c/d"]
optional = true
`
	got, err := localConfig(t, written)
	if err != nil {
		t.Fatal(err)
	}
	for key, was := range before {
		switch want := map[string]any{"max_concurrent_downloads": int64(9), "check_platform_supported": true}[key]; {
		case key == "unpack_config":
		case want == nil && got[key] != was:
			t.Errorf("%s is %v, want its default %v", key, got[key], was)
		case want != nil && got[key] != want:
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	unpack := got["unpack_config"].([]any)
	if len(unpack) != 1 {
		t.Fatalf("unpack_config is %v, want what is written and nothing else", unpack)
	}
	entry := unpack[0].(map[string]any)
	if entry["platform"] != "linux/amd64" || entry["snapshotter"] != "native" || entry["optional"] != true || len(entry["layer_types"].([]any)) != 2 {
		t.Errorf("unpack_config is %v", entry)
	}
	after, err := localConfig(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if before["max_concurrent_downloads"] != after["max_concurrent_downloads"] {
		t.Errorf("the defaults became %v", after)
	}
}

// The table is as strict as the plugin's own: an error names the key and says what
// to write.
func TestLocalTableRejects(t *testing.T) {
	t.Parallel()
	unpack := "[[local.unpack_config]]\n"
	for _, tc := range []struct{ table, want string }{
		{"local.max_downloads = 3", "unknown key max_downloads: write one of check_platform_supported, "},
		// A lenient decoder takes it, or the default beside it.
		{"local.Max_Concurrent_Downloads = 5", "unknown key Max_Concurrent_Downloads: write"},
		{`local.max_concurrent_downloads = "5"`, `key max_concurrent_downloads = "5": write a number`},
		{"local.max_concurrent_downloads = 1.5", "key max_concurrent_downloads = 1.5: write a number"},
		{"local.check_platform_supported = 1", "key check_platform_supported = 1: write true or false"},
		{`local.unpack_config = "native"`, `key unpack_config = "native": write [[…]] tables`},
		{unpack + `snapshoter = "native"`, "unpack_config 1: unknown key snapshoter: write one of "},
		{unpack + "platform = \"linux/amd64\"\n" + unpack + "snapshotter = 1", "unpack_config 2: key snapshotter = 1: write a string"},
		{unpack + `layer_types = "a/b"`, `unpack_config 1: key layer_types = "a/b": write an array of strings`},
	} {
		t.Run(tc.table, func(t *testing.T) {
			t.Parallel()
			_, err := localConfig(t, tc.table)
			wantInvalid(t, err, tc.want)
		})
	}
}
