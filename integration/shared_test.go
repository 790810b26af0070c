package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	registries "github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// fetches counts the requests for content of the digests.
func fetches(reg *registries.Registry, digests []digest.Digest) map[digest.Digest]int {
	out := map[digest.Digest]int{}
	for _, d := range digests {
		if n := reg.Count("GET /v2/app/manifests/"+d.String()) + reg.Count("GET /v2/app/blobs/"+d.String()); n > 0 {
			out[d] = n
		}
	}
	return out
}

// Two hundred pulls at once of indexes that share a manifest, and so its
// referrer: it is fetched once, and no pull fails.
func TestPullsAtOnceFetchASharedReferrerOnce(t *testing.T) {
	const pulls, indexes = 200, 10
	reg := startRegistry(t, registries.Olareg)
	shared := pushSmall(t, reg, "app", "manifest", "shared")
	_, sbom := attach(t, reg, "app", shared.Descriptor, "application/spdx+json", []byte("sbom"))
	for i := range indexes {
		index, err := json.Marshal(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
			Manifests: []ocispec.Descriptor{shared.Descriptor}, Annotations: map[string]string{"index": fmt.Sprint(i)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reg.PushManifest(testContext(t), "app", fmt.Sprintf("v%d", i), ocispec.MediaTypeImageIndex, index); err != nil {
			t.Fatal(err)
		}
	}
	d := startDaemon(t, active(rule(`required = ["sboms"]`)))
	ctx := testContext(t)
	var all sync.WaitGroup
	for n := range pulls {
		all.Go(func() {
			ref := fmt.Sprintf("%s/app:v%d", reg.Host, n%indexes)
			if err := contentPull(ctx, d, ref); err != nil {
				t.Errorf("pull %d: %v", n, err)
			}
		})
	}
	all.Wait()
	for dgst, n := range fetches(reg, sbom) {
		if dgst == sbom[0] && n <= pulls {
			continue // the manifest: pulls that race may cost one small GET each
		}
		if n != 1 {
			t.Errorf("%s was fetched %d times", dgst, n)
		}
	}
	wantClean(t, d)
	collect(t, d)
	if lost := damaged(t, d, sbom); len(lost) > 0 {
		t.Errorf("not stored whole: %v", lost)
	}
	for i := range indexes {
		if read := ls(t, d, fmt.Sprintf("%s/app:v%d", reg.Host, i)); len(read.Referrers) != 1 {
			t.Errorf("v%d has %d referrers, want 1", i, len(read.Referrers))
		}
	}
}

// contentPull pulls without unpacking, into the namespace of the context.
func contentPull(ctx context.Context, d *daemon.Daemon, ref string) error {
	src, err := source.New(ctx, ref, source.WithRegistry(registry.WithDefaultScheme("http")))
	if err != nil {
		return err
	}
	return d.Client.Transfer(ctx, src, image.NewStore(ref, image.WithPlatforms(amd64)))
}

// What another namespace holds of referrers costs no request for a blob where the
// store shares content; where it does not the namespace has to fetch it, as
// containerd has it prove that it may. Each namespace keeps its own.
func TestReferrersOfAnotherNamespaceAreShared(t *testing.T) {
	f := loadFixture(t)
	for _, policy := range []string{"shared", "isolated"} {
		t.Run(policy, func(t *testing.T) {
			reg := startRegistry(t, registries.Olareg)
			wholeFixture(f, t, reg)
			ref := reg.Host + "/app:v1"
			config := active(everything)
			config.More = "[plugins.\"io.containerd.metadata.v1.bolt\"]\n  content_sharing_policy = \"" + policy + "\"\n"
			d := startDaemon(t, config)
			if err := contentPull(testContext(t), d, ref); err != nil {
				t.Fatal(err)
			}
			seen := map[digest.Digest]bool{ocispec.DescriptorEmptyJSON.Digest: true} // is known without a request
			var want, all []digest.Digest
			manifests := map[digest.Digest]bool{}
			for _, name := range []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.SBOMSignature, fixture.VEX} {
				manifests[f.Get(name).Digest] = true
				for _, dgst := range f.Content(name) {
					all = append(all, dgst)
					if !seen[dgst] {
						want, seen[dgst] = append(want, dgst), true
					}
				}
			}

			reg.Reset()
			there := namespaces.WithNamespace(testContext(t), "elsewhere")
			if err := contentPull(there, d, ref); err != nil {
				t.Fatal(err)
			}
			got := fetches(reg, want)
			for dgst, n := range got {
				// A manifest is read before it is stored, and costs a namespace one small GET.
				if policy == "shared" && (!manifests[dgst] || n > 1) {
					t.Errorf("%s was fetched %d times although the store holds it", dgst, n)
				}
			}
			for _, dgst := range want {
				if policy == "isolated" && got[dgst] != 1 {
					t.Errorf("%s was fetched %d times, want 1", dgst, got[dgst])
				}
			}
			// The namespace keeps it without the other.
			if _, err := d.Ctr(testContext(t), "images", "rm", "--sync", ref); err != nil {
				t.Fatal(err)
			}
			for _, dgst := range all {
				data, err := content.ReadBlob(there, d.Client.ContentStore(), ocispec.Descriptor{Digest: dgst})
				if err != nil || dgst.Algorithm().FromBytes(data) != dgst {
					t.Errorf("%s is not whole in the other namespace: %v", dgst, err)
				}
			}
			out, err := d.Ctr(testContext(t), "--namespace", "elsewhere", "referrers", "ls", "--format", "json", ref)
			if err != nil {
				t.Fatal(err)
			}
			wantNames(t, f, parse(t, out), fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation,
				fixture.SBOM, fixture.SBOM+"/"+fixture.SBOMSignature, fixture.VEX)
		})
	}
}

// The image is removed while its referrers come in. The pull puts it there
// again, whole, and when that is removed too nothing is left.
func TestImageRemovedWhileItIsPulledComesWhole(t *testing.T) {
	for name, flags := range map[string][]string{"rm": nil, "rm --sync": {"--sync"}} {
		for again, first := range map[string]bool{"first pull": true, "pull of an image that is there": false} {
			t.Run(name+", "+again, func(t *testing.T) {
				reg := startRegistry(t, registries.Olareg)
				small := pushSmall(t, reg, "app", "v1", "image")
				ref := reg.Host + "/app:v1"
				d := startDaemon(t, active(everything))
				if !first {
					pull(t, d, ref)
				}
				_, sbom := attach(t, reg, "app", small.Descriptor, "application/spdx+json", []byte(strings.Repeat("sbom", 1000)))
				reached, release := make(chan struct{}), make(chan struct{})
				releaseOnce := sync.OnceFunc(func() { close(release) })
				t.Cleanup(releaseOnce)
				reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
					if !strings.HasSuffix(r.URL.Path, "/blobs/"+sbom[2].String()) {
						return false
					}
					close(reached)
					<-release
					return false
				})
				pulled := make(chan error, 1)
				ctx := testContext(t)
				go func() { pulled <- unpackedPull(ctx, d.Client, ref, nil) }()
				select {
				case <-reached:
				case err := <-pulled:
					t.Fatalf("the pull ended without its referrer: %v", err)
				case <-time.After(time.Minute):
					t.Fatal("the referrer was not asked for")
				}
				_, err := d.Ctr(testContext(t), append(append([]string{"images", "rm"}, flags...), ref)...)
				if err != nil && !first {
					t.Error(err)
				}
				collect(t, d)
				releaseOnce()
				reg.Fail(nil)
				if err := <-pulled; err != nil {
					t.Fatalf("the pull lost the image: %v", err)
				}
				collect(t, d)
				if lost := damaged(t, d, append(small.content, sbom...)); len(lost) > 0 {
					t.Errorf("the pull succeeded, but lacks %v", lost)
				}
				if read := ls(t, d, ref); len(read.Referrers) != 1 {
					t.Errorf("%d referrers, want 1", len(read.Referrers))
				}
				wantClean(t, d)
				if _, err := d.Ctr(testContext(t), "images", "rm", "--sync", ref); err != nil {
					t.Fatal(err)
				}
				if have := contents(t, d); len(have) > 0 {
					t.Errorf("content stays: %v", have)
				}
				wantClean(t, d)
			})
		}
	}
}
