package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// unpackable is a layer that can be unpacked.
type unpackable struct {
	data   []byte
	diffID digest.Digest
}

// newLayer returns a layer with one file of so many random bytes.
func newLayer(t *testing.T, seed uint64, size int) unpackable {
	t.Helper()
	file := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(file)
	var plain, gzipped bytes.Buffer
	tw := tar.NewWriter(&plain)
	zw, err := gzip.NewWriterLevel(&gzipped, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprint("file-", seed), Mode: 0o644, Size: int64(size)}); err != nil {
		t.Fatal(err)
	}
	_, _ = tw.Write(file)
	_ = tw.Close()
	_, _ = zw.Write(plain.Bytes())
	_ = zw.Close()
	return unpackable{gzipped.Bytes(), digest.FromBytes(plain.Bytes())}
}

// pushUnpackable pushes an image of the layers, for this platform, and returns its
// name and the digests of its config and its layers.
func pushUnpackable(t *testing.T, reg *registry.Registry, tag string, layers ...unpackable) (image string, blobs []digest.Digest) {
	t.Helper()
	push := func(mediaType string, data []byte) ocispec.Descriptor {
		dgst, err := reg.PushBlob(testContext(t), "app", data)
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, dgst)
		return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(data))}
	}
	config := ocispec.Image{Platform: platforms.DefaultSpec(), RootFS: ocispec.RootFS{Type: "layers"}}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: push(ocispec.MediaTypeImageConfig, data)}
	for _, l := range layers {
		m.Layers = append(m.Layers, push(ocispec.MediaTypeImageLayerGzip, l.data))
	}
	if data, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.PushManifest(testContext(t), "app", tag, ocispec.MediaTypeImageManifest, data); err != nil {
		t.Fatal(err)
	}
	return reg.Host + "/app:" + tag, blobs
}

// blobRequests returns how many requests for blobs began since, and the bytes of their answers.
func blobRequests(reg *registry.Registry, since time.Time) (n int, size int64) {
	for _, r := range reg.Requests() {
		if r.Start.After(since) && strings.Contains(r.Path, "/blobs/") {
			n++
			size += r.Bytes
		}
	}
	return n, size
}

// The first layers are asked for while the config is on its way, one fewer than may be
// downloaded at a time; by a pull that unpacks and by no other.
func TestLayersAreOpenedAhead(t *testing.T) {
	const layers, local = 5, "[plugins.\"io.containerd.transfer.v1.referrers\".local]\n"
	for _, tc := range []struct {
		name, plugin string
		flags        []string
		want         int
	}{
		{"default", "", nil, 2},
		{"native", local + "[[plugins.\"io.containerd.transfer.v1.referrers\".local.unpack_config]]\nplatform = \"linux\"\nsnapshotter = \"native\"\n", []string{"--snapshotter", "native"}, 2},
		{"one download at a time", local + "max_concurrent_downloads = 1\n", nil, 0},
		{"no limit", local + "max_concurrent_downloads = 0\n", nil, 4},
		{"in parts", local + "concurrent_layer_fetch_buffer = 1048576\n", nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			var all []unpackable
			for i := range layers {
				all = append(all, newLayer(t, uint64(i), 4<<10))
			}
			image, blobs := pushUnpackable(t, reg, "v1", all...)
			d := startDaemon(t, active(tc.plugin))
			arrived, release := make(chan digest.Digest, 100), make(chan struct{})
			var once sync.Once
			reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
				switch of := slices.Index(blobs, digest.Digest(path.Base(r.URL.Path))); {
				case of == 0:
					once.Do(func() {
						select {
						case <-release:
						case <-r.Context().Done():
						}
					})
				case of > 0:
					arrived <- blobs[of]
				}
				return false
			})
			pulled := make(chan error, 1)
			go func() {
				_, err := d.Ctr(testContext(t), append(append([]string{"images", "pull"}, tc.flags...), image)...)
				pulled <- err
			}()
			var early []digest.Digest
			for wait := time.After(time.Second); wait != nil; {
				select {
				case dgst := <-arrived:
					early = append(early, dgst)
				case <-wait:
					wait = nil
				}
			}
			close(release)
			if err := <-pulled; err != nil {
				t.Fatal(err)
			}
			slices.Sort(early)
			if want := slices.Sorted(slices.Values(blobs[1 : 1+tc.want])); !slices.Equal(early, want) {
				t.Errorf("before the config came %d layers were asked for, want %d", len(early), tc.want)
			}
			if n, _ := blobRequests(reg, time.Time{}); n != 1+layers {
				t.Errorf("%d requests for blobs, want %d", n, 1+layers)
			}
			wantClean(t, d)
		})
	}
}

// An image that shares its base with one that is there costs no more than in stock
// containerd, where the base is stored. Where only its snapshots are, the layers of the base are opened
// in vain, once.
//
// discard_unpacked_layers leaves a base like that. It is CRI's key, and the image import's flag: containerd's
// transfer service has no such setting ("not supported with transfer service", CheckLocalImagePullConfigs in
// its internal/cri/config), so that no pull through the plugin discards layers. CRI pulls past it where the
// key is set; what comes after such a pull goes through the plugin.
func TestLayersOfASharedBase(t *testing.T) {
	const (
		layer = 16 << 20
		// What was sent of a body that nobody reads waits in the sockets: in the registry's, which is held small,
		// and in the daemon's, which does not grow unless it is read.
		inSockets = 2 << 20
	)
	base := []unpackable{newLayer(t, 1, layer), newLayer(t, 2, layer)}
	reg := startRegistry(t, registry.Olareg, registry.WithWriteBuffer(64<<10))
	first, blobs := pushUnpackable(t, reg, "base", base...)
	var images []string
	for i := range 2 {
		image, _ := pushUnpackable(t, reg, fmt.Sprint("app-", i), append(slices.Clone(base), newLayer(t, uint64(4+i), 64<<10))...)
		images = append(images, image)
	}
	for name, discard := range map[string]bool{"stored": false, "discarded": true} {
		t.Run(name, func(t *testing.T) {
			type cost struct {
				requests int
				bytes    int64
			}
			costs := map[bool][]cost{}
			config := fmt.Sprintf("[plugins.\"io.containerd.cri.v1.images\"]\ndiscard_unpacked_layers = %t\n", discard)
			bothWith(t, config, func(t *testing.T, d *daemon.Daemon, active bool) {
				criPull(t, d, first)
				collectIn(t, d, "k8s.io")
				if n := storedLayers(t, d, blobs[1:]); discard && n != 0 || !discard && n != len(base) {
					t.Fatalf("%d layers of the base are stored", n)
				}
				for _, image := range images {
					start := time.Now() // one that was ended may be counted late
					pull(t, d, image, "--namespace", "k8s.io")
					n, bytes := blobRequests(reg, start)
					costs[active] = append(costs[active], cost{n, bytes})
				}
				wantClean(t, d)
			})
			t.Logf("requests for blobs, and bytes: stock %v, plugin %v", costs[false], costs[true])
			for i, stock := range costs[false] {
				inVain := 0
				if discard && i == 0 {
					inVain = len(base)
				}
				if got := costs[true][i]; got.requests > stock.requests+inVain || got.bytes > stock.bytes+int64(inVain)*inSockets {
					t.Errorf("pull %d made %d requests for %d bytes, stock containerd %d for %d", i, got.requests, got.bytes, stock.requests, stock.bytes)
				}
			}
		})
	}
}

// storedLayers returns how many of the blobs the namespace of CRI has.
func storedLayers(t *testing.T, d *daemon.Daemon, blobs []digest.Digest) (n int) {
	t.Helper()
	ctx := namespaces.WithNamespace(testContext(t), "k8s.io")
	for _, dgst := range blobs {
		switch _, err := d.Client.ContentStore().Info(ctx, dgst); {
		case err == nil:
			n++
		case !errdefs.IsNotFound(err):
			t.Fatal(err)
		}
	}
	return n
}
