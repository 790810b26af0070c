package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// What cosign v2 calls its signatures with OCI 1.1, and the payload that it signs.
const (
	cosignSignature = "application/vnd.dev.cosign.artifact.sig.v1+json"
	cosignPayload   = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// signingKey is the key that signs what an enforcing daemon pulls.
type signingKey struct {
	private *ecdsa.PrivateKey
	path    string // of the public key, PEM
}

func newSigningKey(dir string) (*signingKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "release.pub")
	return &signingKey{private, path}, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
}

// sign puts a signature as cosign v2 makes it onto a subject.
func (i *image) sign(ctx context.Context, reg *registry.Registry, key *signingKey, subject ocispec.Descriptor) error {
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, i.repository, subject.Digest)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key.private, sum[:])
	if err != nil {
		return err
	}
	if _, err := reg.PushBlob(ctx, i.repository, ocispec.DescriptorEmptyJSON.Data); err != nil {
		return err
	}
	dgst, err := reg.PushBlob(ctx, i.repository, payload)
	if err != nil {
		return err
	}
	desc, err := put(ctx, reg, i.repository, "", ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: cosignSignature, Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{{
			MediaType: cosignPayload, Digest: dgst, Size: int64(len(payload)),
			Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
		}},
		Subject: &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
	})
	if err != nil {
		return err
	}
	i.referrers = append(i.referrers, desc)
	i.blobs = append(i.blobs, dgst)
	return nil
}
