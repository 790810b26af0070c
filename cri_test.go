package referrers

import (
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

func TestCRIReasons(t *testing.T) {
	for _, tc := range []struct {
		name, goos, toml string
		want             []string
	}{
		{"CRI uses the transfer service", "linux", "max_concurrent_downloads = 5", nil},
		{"decided alone", "linux", "use_local_image_pull = true\ndisable_snapshot_annotations = true\nmax_concurrent_downloads = 3", []string{"use_local_image_pull = true"}},
		{"keys that this containerd lacks", "linux", "use_local_image_pull = true", []string{"use_local_image_pull = true"}},
		{"annotations", "linux", "use_local_image_pull = true\ndisable_snapshot_annotations = false", []string{"disable_snapshot_annotations = false"}},
		{"annotations, the default on Windows", "windows", "use_local_image_pull = true\ndisable_snapshot_annotations = false\nmax_concurrent_downloads = 1", []string{"max_concurrent_downloads = 1"}},
		{"annotations off on Windows", "windows", "use_local_image_pull = true\ndisable_snapshot_annotations = true", []string{"disable_snapshot_annotations = true"}},
		{"auths, which CRI adds to the configs", "linux", "use_local_image_pull = true\nregistry.auths.a.auth = ''\nregistry.configs.a.auth = ''", []string{"registry.auths"}},
		{"several", "linux", "use_local_image_pull = true\nimage_pull_with_sync_fs = true\nregistry.mirrors.a.endpoint = []", []string{"registry.mirrors", "image_pull_with_sync_fs = true"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c criImages
			if err := toml.Unmarshal([]byte(tc.toml), &c); err != nil {
				t.Fatal(err)
			}
			got := c.reasons(tc.goos)
			if len(got) != len(tc.want) {
				t.Fatalf("got %q, want %q", got, tc.want)
			}
			for i, key := range tc.want {
				if !strings.HasPrefix(got[i], key+` in [plugins."io.containerd.cri.v1.images"]: `) {
					t.Errorf("got %q, want %q", got[i], key)
				}
			}
		})
	}
}

func TestCRILostHeaders(t *testing.T) {
	const table = ` in [plugins."io.containerd.cri.v1.images".registry.headers]`
	for _, tc := range []struct {
		name, toml string
		want       []string // the beginning and the end of each
	}{
		{"none", "", nil},
		{"canonical", "registry.headers.X-Node = ['7']", nil},
		{"lower case", "registry.headers.x-node = ['7']", []string{"CRI's images are pulled without referrers, and refused where a rule requires them, because of the header x-node,", "write X-Node" + table}},
		{"several", "registry.headers = {x-b = ['7'], X-C = ['8'], x-a = ['9']}", []string{"CRI's images", "write X-A" + table, "CRI's images", "write X-B" + table}},
		{"two values", "registry.headers.X-Node = ['7', '8']", []string{"registries get only the first of the 2 values of CRI's header X-Node:", "write one value, with commas," + table}},
		{"CRI pulls by itself", "use_local_image_pull = true\nregistry.headers.x-node = ['7', '8']", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c criImages
			if err := toml.Unmarshal([]byte(tc.toml), &c); err != nil {
				t.Fatal(err)
			}
			got := c.lostHeaders()
			if len(got) != len(tc.want)/2 {
				t.Fatalf("got %q, want %q", got, tc.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tc.want[2*i]) || !strings.HasSuffix(got[i], tc.want[2*i+1]) {
					t.Errorf("got %q, want %q", got[i], tc.want[2*i:2*i+2])
				}
			}
		})
	}
}
