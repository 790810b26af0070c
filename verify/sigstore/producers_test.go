package sigstore

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// fixtures are what the real producers made, of keys that have no date.
const fixtures = "../../integration/fixture/testdata"

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(fixtures, path))
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func blobPath(d digest.Digest) string { return "layout/blobs/sha256/" + d.Encoded() }

func TestWhatCosignMadeVerifies(t *testing.T) {
	public, err := os.ReadFile(filepath.Join(fixtures, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	v, other := trustKeys(t, public), trustKeys(t, sigstoretest.NewKey(t).PEM)
	forms := map[string]struct {
		format evidence.Format
		kind   evidence.Kind
	}{
		"cosign-signature":      {evidence.Bundle, evidence.Signature},
		"cosign-attestation":    {evidence.Bundle, evidence.Attestation},
		"cosign-v2-signature":   {evidence.CosignSignature, evidence.Signature},
		"cosign-v2-attestation": {evidence.DSSE, evidence.Attestation},
	}
	var index ocispec.Index
	readJSON(t, "layout/index.json", &index)
	image := index.Manifests[0].Digest
	found := 0
	for _, d := range index.Manifests {
		form, ok := forms[d.Annotations["transfer-referrers.fixture.name"]]
		if !ok {
			continue
		}
		found++
		var manifest ocispec.Manifest
		readJSON(t, blobPath(d.Digest), &manifest)
		layer := manifest.Layers[0]
		data, err := os.ReadFile(filepath.Join(fixtures, blobPath(layer.Digest)))
		if err != nil {
			t.Fatal(err)
		}
		e := evidence.Evidence{Format: form.format, Subject: ocispec.Descriptor{Digest: image}, MediaType: layer.MediaType, Data: data, Annotations: layer.Annotations}
		got := accept(t, v, e)
		if got.Kind != form.kind || (got.PredicateType != "") != (form.kind == evidence.Attestation) {
			t.Errorf("%s: a %s of %q, about %q", form.format, got.Kind, got.PredicateType, got.Names)
		}
		reject(t, other, e, "none of the trust's 1 keys verifies it")
		e.Subject.Digest = sibling
		reject(t, v, e, "about")
	}
	if found != len(forms) {
		t.Errorf("%d of %d forms are in the fixture", found, len(forms))
	}
}
