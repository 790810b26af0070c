package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// small is an image for linux/amd64 of one layer with one file, which tells it
// apart from others.
type small struct {
	ocispec.Descriptor
	content []digest.Digest // manifest, config and layer
}

// pushSmall puts one into the repository; the same text makes the same image.
func pushSmall(t *testing.T, reg *registry.Registry, repository, tag, text string) small {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "text", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	config := []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(layer.Bytes()).String() + `"]}}`)
	var described []ocispec.Descriptor
	for mediaType, blob := range map[string][]byte{ocispec.MediaTypeImageConfig: config, ocispec.MediaTypeImageLayer: layer.Bytes()} {
		dgst, err := reg.PushBlob(testContext(t), repository, blob)
		if err != nil {
			t.Fatal(err)
		}
		described = append(described, ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(blob))})
	}
	if described[0].MediaType != ocispec.MediaTypeImageConfig {
		described[0], described[1] = described[1], described[0]
	}
	m, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: described[0], Layers: described[1:],
	})
	if err != nil {
		t.Fatal(err)
	}
	desc, err := reg.PushManifest(testContext(t), repository, tag, ocispec.MediaTypeImageManifest, m)
	if err != nil {
		t.Fatal(err)
	}
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	return small{desc, []digest.Digest{desc.Digest, described[0].Digest, described[1].Digest}}
}

// attach puts a referrer of one blob beside its subject, and returns it with the
// digests of all that it consists of.
func attach(t *testing.T, reg *registry.Registry, repository string, subject ocispec.Descriptor, artifactType string, blob []byte) (ocispec.Descriptor, []digest.Digest) {
	t.Helper()
	desc, err := reg.Attach(testContext(t), repository, subject, artifactType, nil, blob)
	if err != nil {
		t.Fatal(err)
	}
	return desc, []digest.Digest{desc.Digest, ocispec.DescriptorEmptyJSON.Digest, digest.FromBytes(blob)}
}

// damaged returns those of the digests whose content the daemon does not have, or
// not with its own bytes.
func damaged(t *testing.T, d *daemon.Daemon, digests []digest.Digest) []digest.Digest {
	t.Helper()
	var out []digest.Digest
	for _, dgst := range digests {
		data, err := content.ReadBlob(testContext(t), d.Client.ContentStore(), ocispec.Descriptor{Digest: dgst})
		if err != nil || dgst.Algorithm().FromBytes(data) != dgst {
			out = append(out, dgst)
		}
	}
	return out
}

// manifestOf returns a manifest of the registry's.
func manifestOf(t *testing.T, reg *registry.Registry, repository string, dgst digest.Digest) string {
	t.Helper()
	resp, err := http.Get(reg.Backend + "/v2/" + repository + "/manifests/" + dgst.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("manifest %s: %s, %v", dgst, resp.Status, err)
	}
	return string(data)
}
