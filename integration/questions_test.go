package integration

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	client "github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// A subject with a hundred referrers, each with one of its own, costs a pull again one
// listing for each, all of them asked for while the tag is resolved: a round trip, and
// not a hundred.
func TestPullAgainWithManyReferrers(t *testing.T) {
	const referrers, late = 100, 20 * time.Millisecond
	reg := startRegistry(t, registry.Olareg, registry.WithDelay(late))
	ctx := testContext(t)
	for repository, n := range map[string]int{"many": referrers, "none": 0} {
		image := pushSmall(t, reg, repository, "v1", repository)
		for i := range n {
			sbom, err := reg.Attach(ctx, repository, image.Descriptor, "application/spdx+json", nil, fmt.Appendf(nil, "sbom %d", i))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := reg.Attach(ctx, repository, sbom, "application/vnd.cncf.notary.signature", nil, fmt.Appendf(nil, "signature %d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := startDaemon(t, active("cosign_tags = \"never\"\n"+everything))
	quickest, whole := map[string]time.Duration{}, map[string]time.Duration{}
	for _, repository := range []string{"many", "none"} {
		ref := reg.Host + "/" + repository + ":v1"
		pull(t, d, ref, "--plain-http")
		for range 5 {
			reg.Reset()
			began := time.Now()
			pull(t, d, ref, "--plain-http")
			if took := time.Since(began); whole[repository] == 0 || took < whole[repository] {
				whole[repository] = took
			}
			first, last := span(reg.Requests())
			if took := last.Sub(first); quickest[repository] == 0 || took < quickest[repository] {
				quickest[repository] = took
			}
		}
	}
	if n := len(ls(t, d, reg.Host+"/many:v1").Referrers); n != referrers {
		t.Errorf("%d referrers are stored, want %d", n, referrers)
	}
	t.Logf("a pull again takes %v with %d referrers and %v without; its requests, first to last, %v and %v", whole["many"], referrers, whole["none"], quickest["many"], quickest["none"])

	reg.Reset()
	pull(t, d, reg.Host+"/many:v1", "--plain-http")
	paths := map[string]int{}
	for _, r := range reg.Requests() {
		what := r.Method + " " + r.Path
		paths[what]++
		if paths[what] > 1 || r.Method != http.MethodHead && !strings.Contains(r.Path, "/referrers/") {
			t.Errorf("%d of %s", paths[what], what)
		}
	}
	if n := reg.Count("/referrers/"); n != 1+referrers || len(reg.Requests()) != 1+n {
		t.Errorf("%d requests, %d of them listings, want %d listings and the image's own", len(reg.Requests()), n, 1+referrers)
	}
}

// span is from when the first of the requests came to when the last was answered.
func span(requests []registry.Request) (first, last time.Time) {
	for _, r := range requests {
		if first.IsZero() || r.Start.Before(first) {
			first = r.Start
		}
		if r.End.After(last) {
			last = r.End
		}
	}
	return first, last
}

// Docker Hub counts GETs of manifest addresses, by tag or digest, against its limit of pulls.
// A pull makes no more of them than stock containerd but for the referrers that it takes, and
// for the listing where that lies under a fallback tag; a pull again makes none. GETs of tags
// that are not there bring nothing, and are counted apart: a first pull asks for each once.
func TestManifestsAreCountedAsPullsOnce(t *testing.T) {
	for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
		t.Run(string(kind), func(t *testing.T) {
			reg := startRegistry(t, kind)
			image := pushSmall(t, reg, "app", "v1", "counted")
			taken := pushCounted(t, reg, kind, image)
			// gets returns the GETs of manifests that were answered, and how many were not.
			gets := func(d *daemon.Daemon) (answered map[string]int, missing int) {
				reg.Reset()
				pull(t, d, reg.Host+"/app:v1", "--plain-http")
				answered = map[string]int{}
				for _, r := range reg.Requests() {
					_, reference, ok := strings.Cut(r.Path, "/manifests/")
					switch {
					case !ok || r.Method != http.MethodGet:
					case r.Code == http.StatusNotFound:
						missing++
					case reference == "v1": // stock containerd gets it by its digest
						answered[image.Digest.String()]++
					default:
						answered[reference]++
					}
				}
				return answered, missing
			}
			plain, ours := startDaemon(t, stock), startDaemon(t, active(everything))
			want, _ := gets(plain)
			for _, reference := range taken {
				want[reference] = 1
			}
			got, missing := gets(ours)
			// .att of the image, as the listing has an SBOM; and the fallback tag of the SBOM.
			absent := 1
			if kind == registry.Distribution {
				absent = 2
			}
			if !maps.Equal(got, want) || missing != absent {
				t.Errorf("a pull: %v, and %d of tags that are not there; want %v, and %d", got, missing, want, absent)
			}
			want, _ = gets(plain)
			if got, missing = gets(ours); !maps.Equal(got, want) || missing != 0 {
				t.Errorf("a pull again: %v, and %d of tags that are not there; want %v", got, missing, want)
			}
			if n := len(ls(t, ours, reg.Host+"/app:v1").Referrers); n != 2 {
				t.Errorf("%d referrers are stored, want an SBOM and a signature", n)
			}
		})
	}
}

// pushCounted gives the image an SBOM that is listed and a signature under cosign's tag, and
// returns the references that a pull must get for them.
func pushCounted(t *testing.T, reg *registry.Registry, kind registry.Kind, image small) []string {
	t.Helper()
	sbom, _ := attach(t, reg, "app", image.Descriptor, "application/spdx+json", []byte("sbom"))
	layer := []byte("signed")
	if _, err := reg.PushBlob(testContext(t), "app", layer); err != nil {
		t.Fatal(err)
	}
	config := ocispec.DescriptorEmptyJSON
	config.MediaType = ocispec.MediaTypeImageConfig // as cosign's
	signature := client.CosignKinds[0].Tag(image.Digest)
	put(t, reg, signature, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Layers: []ocispec.Descriptor{{MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Digest: digest.FromBytes(layer), Size: int64(len(layer))}},
	})
	taken := []string{sbom.Digest.String(), signature}
	if kind == registry.Distribution {
		put(t, reg, client.FallbackTag(image.Digest), ocispec.MediaTypeImageIndex, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{sbom},
		})
		taken = append(taken, client.FallbackTag(image.Digest))
	}
	return taken
}
