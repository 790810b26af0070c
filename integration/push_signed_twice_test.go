package integration

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// An image that cosign signs again between two pulls has a manifest with one
// signature, which is kept, and one with both. Both would go under one tag: a push
// leaves the one that holds all, every time.
func TestPushOfAnImageSignedTwice(t *testing.T) {
	f := loadFixture(t)
	from := startRegistry(t, registry.Olareg)
	imageAlone(f, t, from)
	if err := f.PushCosignTags(testContext(t), from, "app"); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, active(pushTrue))
	image := from.Host + "/app:v1"
	pullAll := func() { ctr(t, d, "images", "pull", "--all-platforms", image) }
	pullAll()
	sig := f.Get(fixture.LegacySignature)
	tag := sig.Annotations[fixture.AnnotationTag]
	if _, err := from.PushManifest(testContext(t), "app", tag, ocispec.MediaTypeImageManifest, signedAgain(t, f, sig)); err != nil {
		t.Fatal(err)
	}
	pullAll()
	for range 6 {
		to := startRegistry(t, registry.Olareg)
		for range 2 {
			if err := pushAs(t, d, image, to.Host+"/app:v1"); err != nil {
				t.Error(err)
			}
			if n := signaturesUnder(t, to, tag); n != 2 {
				t.Errorf("%d signatures lie under the tag, want both", n)
			}
		}
	}
}

// signedAgain is the signature's manifest with one signature more, as cosign adds it.
func signedAgain(t *testing.T, f *fixture.Fixture, sig ocispec.Descriptor) []byte {
	t.Helper()
	data, err := f.Blob(sig.Digest)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	second := m.Layers[0]
	second.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "c2Vjb25k"}
	m.Layers = append(m.Layers, second)
	if data, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return data
}

func signaturesUnder(t *testing.T, reg *registry.Registry, tag string) int {
	t.Helper()
	resp, err := http.Get(reg.Backend + "/v2/app/manifests/" + tag)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return len(m.Layers)
}
