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
