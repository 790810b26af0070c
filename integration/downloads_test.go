package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// pushLayers pushes an image with so many layers, which nobody unpacks, and returns
// its manifest and the layers.
func pushLayers(t *testing.T, reg *registry.Registry, n int) (ocispec.Descriptor, []digest.Digest) {
	t.Helper()
	push := func(mediaType string, data []byte) ocispec.Descriptor {
		dgst, err := reg.PushBlob(testContext(t), "app", data)
		if err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(data))}
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: push(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux"}`)),
	}
	var layers []digest.Digest
	for i := range n {
		m.Layers = append(m.Layers, push(ocispec.MediaTypeImageLayer, fmt.Append(nil, "layer ", i)))
		layers = append(layers, m.Layers[i].Digest)
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := reg.PushManifest(testContext(t), "app", "v1", ocispec.MediaTypeImageManifest, data)
	if err != nil {
		t.Fatal(err)
	}
	return desc, layers
}

// Content comes in as many at a time as the two keys say, the image's and the
// referrers', no more and no fewer. The registry holds every answer back until no
// further request comes.
func TestDownloadsAtATime(t *testing.T) {
	const own = `[plugins."io.containerd.transfer.v1.referrers".local]` + "\n  max_concurrent_downloads = %d\n"
	const content = 6
	for _, tc := range []struct {
		name, plugin string
		want         int
		referrers    bool
	}{
		{"layers, one", everything + fmt.Sprintf(own, 1), 1, false},
		{"layers, four", everything + fmt.Sprintf(own, 4), 4, false},
		// The other key does not matter to either.
		{"layers, two, and four referrers", "max_concurrent_downloads = 4\n" + everything + fmt.Sprintf(own, 2), 2, false},
		{"referrers, one", "max_concurrent_downloads = 1\n" + everything, 1, true},
		{"referrers, four, and two layers", "max_concurrent_downloads = 4\n" + everything + fmt.Sprintf(own, 2), 4, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			image, layers := pushLayers(t, reg, content)
			held := map[string]bool{}
			for _, l := range layers {
				held[l.String()] = !tc.referrers
			}
			for i := range content {
				_, digests := attach(t, reg, "app", image, "application/vnd.example.text", fmt.Append(nil, "referrer ", i))
				for _, dgst := range digests { // manifests as well as blobs
					held[dgst.String()] = tc.referrers
				}
			}
			d := startDaemon(t, active(tc.plugin))
			arrived, release := make(chan struct{}, 100), make(chan struct{})
			reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
				if held[path.Base(r.URL.Path)] && r.Method == http.MethodGet {
					arrived <- struct{}{}
					select {
					case <-release:
					case <-r.Context().Done():
					}
				}
				return false
			})
			ctx, pulled := testContext(t), make(chan error, 1)
			go func() { pulled <- clientPull(t, d, reg.Host+"/app:v1", nil) }()
			for range tc.want {
				select {
				case <-arrived:
				case <-ctx.Done():
					t.Error("fewer downloads at a time")
				}
			}
			select {
			case <-arrived:
				t.Errorf("more than %d downloads at a time", tc.want)
			case <-time.After(500 * time.Millisecond):
			}
			close(release)
			if err := <-pulled; err != nil {
				t.Error(err)
			}
			if n := len(ls(t, d, reg.Host+"/app:v1").Referrers); n != content {
				t.Errorf("%d referrers came, want %d", n, content)
			}
		})
	}
}
