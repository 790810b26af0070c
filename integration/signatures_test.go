package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

const simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"

// cosignLayer puts the payload of one signature, as cosign writes it, and returns its
// layer. Signers with the same annotations sign the same payload.
func cosignLayer(t *testing.T, reg *registry.Registry, image digest.Digest, signer string, optional map[string]string) ocispec.Descriptor {
	t.Helper()
	payload, err := json.Marshal(map[string]any{
		"critical": map[string]any{
			"identity": map[string]string{"docker-reference": reg.Host + "/app"},
			"image":    map[string]string{"docker-manifest-digest": image.String()},
			"type":     "cosign container image signature",
		},
		"optional": optional,
	})
	if err != nil {
		t.Fatal(err)
	}
	layer := described(simpleSigning, string(payload))
	if _, err := reg.PushBlob(testContext(t), "app", payload); err != nil {
		t.Fatal(err)
	}
	layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "signature of " + signer}
	return layer
}

// cosignManifest puts the config of signatures, and returns their manifest.
func cosignManifest(t *testing.T, reg *registry.Registry, layers []ocispec.Descriptor) ocispec.Manifest {
	t.Helper()
	ids := []digest.Digest{}
	for _, l := range layers {
		ids = append(ids, l.Digest)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "", "created": "0001-01-01T00:00:00Z", "history": []any{}, "os": "",
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}, "config": map[string]any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.PushBlob(testContext(t), "app", config); err != nil {
		t.Fatal(err)
	}
	return ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: described(ocispec.MediaTypeImageConfig, string(config)), Layers: layers,
	}
}

// cosign adds a layer to the manifest under its tag for each signature: many signers do not
// make an image unsigned.
func TestManySignaturesUnderCosignsTag(t *testing.T) {
	for _, tc := range []struct {
		n    int
		same bool // payload
		says string
	}{
		{33, false, ""},
		{200, false, ""},
		{1000, true, ""},
		{1001, true, "more than 1000 layers"},
	} {
		t.Run(fmt.Sprint(tc.n), func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			image := pushSmall(t, reg, "app", "v1", "image")
			layers := make([]ocispec.Descriptor, tc.n)
			for i := range layers {
				optional := map[string]string{"signer": fmt.Sprint(i)}
				if tc.same {
					if optional = nil; i > 0 {
						layers[i] = layers[0]
						layers[i].Annotations = map[string]string{"dev.cosignproject.cosign/signature": fmt.Sprint("signature of ", i)}
						continue
					}
				}
				layers[i] = cosignLayer(t, reg, image.Digest, fmt.Sprint(i), optional)
			}
			tag := "sha256-" + image.Digest.Encoded() + ".sig"
			signature := put(t, reg, tag, ocispec.MediaTypeImageManifest, cosignManifest(t, reg, layers))
			d := startDaemon(t, active(rule(`required = ["signatures"]`)))
			name := reg.Host + "/app:v1"
			_, err := d.Ctr(testContext(t), "images", "pull", "--plain-http", name)
			if tc.says != "" {
				wantError(t, err, tc.says, "lacks referrers", "truncated")
				collect(t, d)
				wantNothing(t, d)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			pull(t, d, name)
			collect(t, d)
			want := []string{fmt.Sprintf("%s of %s: %s", signature.Digest, image.Digest, artifact.TypeCosignSignature)}
			read := ls(t, d, name)
			if got := tied(read.Referrers); !slices.Equal(got, want) || read.Status != labels.Present {
				t.Errorf("%s, tied are %q, want %q", read.Status, got, want)
			}
			content := []digest.Digest{signature.Digest}
			for _, l := range layers {
				content = append(content, l.Digest)
			}
			if lost := damaged(t, d, content); len(lost) > 0 {
				t.Errorf("not stored: %v", lost)
			}
			if tc.same {
				return
			}
			path := exportedFrom(t, d, name)
			wantWholeArchive(t, path)
			removed(t, d)
			imported(t, d, path, name, image.Digest)
			if got := tied(ls(t, d, name).Referrers); !slices.Equal(got, want) {
				t.Errorf("an import ties %q, want %q", got, want)
			}
			if lost := damaged(t, d, content); len(lost) > 0 {
				t.Errorf("not imported: %v", lost)
			}
			removed(t, d)
		})
	}
}

// Where cosign stores signatures as referrers, each manifest may repeat the layers of those
// before it. All are taken, and each layer once.
func TestSignaturesThatRepeatEarlierLayers(t *testing.T) {
	reg := startRegistry(t, registry.Olareg)
	image := pushSmall(t, reg, "app", "v1", "image")
	subject := subjectOf(image.Descriptor)
	var layers []ocispec.Descriptor
	var want []string
	for i := range 40 {
		layers = append(layers, cosignLayer(t, reg, image.Digest, fmt.Sprint(i), map[string]string{"signer": fmt.Sprint(i)}))
		m := cosignManifest(t, reg, layers)
		m.ArtifactType, m.Subject = artifact.TypeCosignSignature, &subject
		want = append(want, fmt.Sprintf("%s of %s: %s", put(t, reg, "", ocispec.MediaTypeImageManifest, m).Digest, image.Digest, m.ArtifactType))
	}
	slices.Sort(want)
	d := startDaemon(t, active(rule(`required = ["signatures"]`, `on_error = "fail"`)))
	name := reg.Host + "/app:v1"
	pull(t, d, name, "--plain-http")
	if got := tied(ls(t, d, name).Referrers); !slices.Equal(got, want) {
		t.Errorf("tied are\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
	for _, l := range layers {
		if n := reg.Count("GET /v2/app/blobs/" + l.Digest.String()); n != 1 {
			t.Errorf("%s was fetched %d times", l.Digest, n)
		}
	}
	path := exportedFrom(t, d, name)
	wantWholeArchive(t, path)
	removed(t, d)
	imported(t, d, path, name, image.Digest)
	if got := tied(ls(t, d, name).Referrers); !slices.Equal(got, want) {
		t.Errorf("an import ties\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
	removed(t, d)
}
