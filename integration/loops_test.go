package integration

import (
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// A referrer that is an index may list what it refers to, or what that refers to. Every
// operation ends, and every copy is complete.
func TestReferrersInLoops(t *testing.T) {
	type nodes struct{ index, manifest ocispec.Descriptor }
	reg, d, other := startRegistry(t, registry.Olareg), startDaemon(t, active(pushTrue)), startDaemon(t, active(everything))
	registries := map[registry.Kind]*registry.Registry{}
	for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
		registries[kind] = startRegistry(t, kind)
	}
	indexOf := func(t *testing.T, subject *ocispec.Descriptor, manifests ...ocispec.Descriptor) ocispec.Descriptor {
		t.Helper()
		return subjectOf(put(t, reg, "", ocispec.MediaTypeImageIndex, imageIndex(subject, manifests...)))
	}
	for _, tc := range []struct {
		name string
		// push puts the referrers, and returns each with its subject.
		push func(t *testing.T, of *nodes) [][2]ocispec.Descriptor
	}{
		{"an index lists its subject", func(t *testing.T, of *nodes) [][2]ocispec.Descriptor {
			return [][2]ocispec.Descriptor{{indexOf(t, &of.manifest, of.manifest), of.manifest}}
		}},
		{"an index lists the image's index, which is its subject", func(t *testing.T, of *nodes) [][2]ocispec.Descriptor {
			return [][2]ocispec.Descriptor{{indexOf(t, &of.index, of.index), of.index}}
		}},
		{"an index lists an index that lists its subject", func(t *testing.T, of *nodes) [][2]ocispec.Descriptor {
			return [][2]ocispec.Descriptor{{indexOf(t, &of.manifest, indexOf(t, nil, of.manifest)), of.manifest}}
		}},
		{"an index lists the image's index, which lists its subject", func(t *testing.T, of *nodes) [][2]ocispec.Descriptor {
			return [][2]ocispec.Descriptor{{indexOf(t, &of.manifest, of.index), of.manifest}}
		}},
		{"a referrer's referrer lists both and the image", func(t *testing.T, of *nodes) [][2]ocispec.Descriptor {
			sbom, _ := attach(t, reg, "app", of.manifest, "application/spdx+json", []byte("sbom"))
			sbom = subjectOf(sbom)
			return [][2]ocispec.Descriptor{{sbom, of.manifest}, {indexOf(t, &sbom, sbom, of.manifest, of.index), sbom}}
		}},
		{"referrers of each other's subjects list each other", func(t *testing.T, of *nodes) [][2]ocispec.Descriptor {
			first := indexOf(t, &of.manifest, of.manifest)
			second := indexOf(t, &of.index, first, of.manifest)
			return [][2]ocispec.Descriptor{{first, of.manifest}, {second, of.index}, {indexOf(t, &second, first), second}}
		}},
		{"the image's index refers to its manifest", func(t *testing.T, of *nodes) [][2]ocispec.Descriptor {
			manifest := of.manifest
			manifest.Platform = &amd64
			of.index = subjectOf(put(t, reg, "v1", ocispec.MediaTypeImageIndex, imageIndex(&of.manifest, manifest)))
			return [][2]ocispec.Descriptor{{of.index, of.manifest}}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var of nodes
			of.index, of.manifest = pushIndexed(t, reg, "v1", tc.name)
			of.index = subjectOf(of.index)
			var want []string
			for _, r := range tc.push(t, &of) {
				want = append(want, r[0].Digest.String()+" of "+r[1].Digest.String())
			}
			slices.Sort(want)
			wantTied := func(d *daemon.Daemon, image string) {
				t.Helper()
				var got []string
				for _, line := range tied(ls(t, d, image).Referrers) {
					got = append(got, line[:strings.LastIndex(line, ": ")]) // without the type
				}
				if !slices.Equal(got, want) {
					t.Errorf("tied to %s are\n %s\nwant\n %s", image, strings.Join(got, "\n "), strings.Join(want, "\n "))
				}
			}
			image := reg.Host + "/app:v1"
			pull(t, d, image)
			pull(t, d, image)
			collect(t, d)
			wantTied(d, image)
			referrers(t, d, "ls", image).want(t, 0)
			referrers(t, d, "fetch", "--plain-http", image).want(t, 0)
			if e := explained(t, d, "--plain-http", image); len(e.Refused) > 0 {
				t.Errorf("a pull would be refused: %s", e.Refused)
			}
			wantTied(d, image)

			path := exportedFrom(t, d, image)
			wantWholeArchive(t, path)
			imported(t, other, path, image, of.index.Digest)
			wantTied(other, image)
			if out := ctr(t, other, "images", "check"); !strings.Contains(out, "complete") {
				t.Errorf("the image is not complete: %s", out)
			}
			removed(t, other)

			for kind, to := range registries {
				as := to.Host + "/app:v1"
				if err := pushAs(t, d, image, as, "--platform", "linux/amd64"); err != nil {
					t.Errorf("push to %s: %v", kind, err)
					continue
				}
				pull(t, other, as)
				if kind != registry.Distribution || !strings.HasPrefix(tc.name, "the image's index refers") {
					wantTied(other, as) // else it is the image's to be listed under a tag, which no push does
				}
				removed(t, other)
			}
			removed(t, d)
		})
	}
}
