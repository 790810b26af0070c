package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// The artifact types that a daemon without rules takes, and one that none does.
const (
	signature   = "application/vnd.cncf.notary.signature"
	attestation = "application/vnd.in-toto+json"
	unwanted    = "application/vnd.example.unwanted"
)

// random returns bytes that no compression shrinks, the same for the same seed.
func random(seed uint64, size int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	out := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(out) // never fails
	return out
}

// layer returns a gzipped layer with one file, and the digest of its tar.
func layer(seed uint64, size int) (gzipped []byte, diffID digest.Digest, err error) {
	var plain, out bytes.Buffer
	tw := tar.NewWriter(&plain)
	if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("file-%d", seed), Mode: 0o644, Size: int64(size)}); err != nil {
		return nil, "", err
	}
	if _, err := tw.Write(random(seed, size)); err != nil {
		return nil, "", err
	}
	if err := tw.Close(); err != nil {
		return nil, "", err
	}
	zw, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, "", err
	}
	if _, err := zw.Write(plain.Bytes()); err != nil {
		return nil, "", err
	}
	err = zw.Close()
	return out.Bytes(), digest.FromBytes(plain.Bytes()), err
}

// image is what a repository holds.
type image struct {
	repository      string
	index, manifest ocispec.Descriptor
	referrers       []ocispec.Descriptor // of both
	blobs           []digest.Digest      // of the referrers, the empty config left out
}

// pushImage puts an index with one manifest for this platform, and one for another,
// under the tag v1. Images of another seed have other layers.
func pushImage(ctx context.Context, reg *registry.Registry, repository string, seed uint64, layers, layerSize int) (*image, error) {
	config := ocispec.Image{Platform: platforms.DefaultSpec(), RootFS: ocispec.RootFS{Type: "layers"}}
	var descs []ocispec.Descriptor
	for i := range layers {
		data, diffID, err := layer(seed+uint64(i), layerSize)
		if err != nil {
			return nil, err
		}
		dgst, err := reg.PushBlob(ctx, repository, data)
		if err != nil {
			return nil, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		descs = append(descs, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: dgst, Size: int64(len(data))})
	}
	var manifests []ocispec.Descriptor
	for _, architecture := range []string{config.Architecture, "riscv64"} {
		config.Architecture = architecture
		data, err := json.Marshal(config)
		if err != nil {
			return nil, err
		}
		dgst, err := reg.PushBlob(ctx, repository, data)
		if err != nil {
			return nil, err
		}
		desc, err := put(ctx, reg, repository, "", ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: dgst, Size: int64(len(data))}, Layers: descs,
		})
		if err != nil {
			return nil, err
		}
		desc.Platform = &ocispec.Platform{OS: config.OS, Architecture: architecture, Variant: config.Variant}
		manifests = append(manifests, desc)
		config.Variant = ""
	}
	index, err := put(ctx, reg, repository, "v1", ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
	if err != nil {
		return nil, err
	}
	return &image{repository: repository, index: index, manifest: manifests[0]}, nil
}

func put(ctx context.Context, reg *registry.Registry, repository, tag, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return reg.PushManifest(ctx, repository, tag, mediaType, data)
}

// attach puts an artifact with one blob, whose file has a name as oras attach
// gives it, onto a subject.
func (i *image) attach(ctx context.Context, reg *registry.Registry, subject ocispec.Descriptor, artifactType string, blob []byte) (ocispec.Descriptor, error) {
	if _, err := reg.PushBlob(ctx, i.repository, ocispec.DescriptorEmptyJSON.Data); err != nil {
		return ocispec.Descriptor{}, err
	}
	dgst, err := reg.PushBlob(ctx, i.repository, blob)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := put(ctx, reg, i.repository, "", ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType, Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{{MediaType: "application/octet-stream", Digest: dgst, Size: int64(len(blob)),
			Annotations: map[string]string{ocispec.AnnotationTitle: dgst.Encoded()[:12] + ".json"}}},
		Subject: &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
	})
	if err != nil {
		return desc, err
	}
	i.referrers = append(i.referrers, desc)
	i.blobs = append(i.blobs, dgst)
	return desc, nil
}
