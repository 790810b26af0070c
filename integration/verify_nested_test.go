package integration

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// An image whose index holds a manifest beside an index of indexes is judged whole, before
// any layer: containerd's dispatch comes to the deepest manifest when those beside it have
// been handled.
func TestVerifiedPullOfNestedIndexes(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	first, deep := pushRuled(t, reg, "first"), pushRuled(t, reg, "deep")
	image := ruled{pushIndexOf(t, reg, "v1", first.Descriptor, pushIndexOf(t, reg, "", pushIndexOf(t, reg, "", deep.Descriptor))),
		reg, reg.Host + "/app:v1", append(first.withheld, deep.withheld...)}
	began := time.Now()
	image.refused(t, d)
	signBundle(t, first, key)
	image.refused(t, d) // the deepest manifest is not signed
	signBundle(t, deep, key)
	pull(t, d, image.name)
	referrers(t, d, "verify", image.name).want(t, 0)
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("three pulls took %s: one waited for the timeout", took)
	}
}

// pushIndexOf puts an index of manifests for this platform, and of indexes.
func pushIndexOf(t *testing.T, reg *registry.Registry, tag string, children ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, c := range children {
		if c.MediaType == ocispec.MediaTypeImageManifest {
			c.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
		}
		index.Manifests = append(index.Manifests, c)
	}
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := reg.PushManifest(testContext(t), "app", tag, ocispec.MediaTypeImageIndex, data)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}
