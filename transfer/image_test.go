package transfer

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/transfer"
	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// bench is where a test builds an image: what it puts there is in the store, or,
// once it is remote, in a registry alone.
type bench struct {
	t      *testing.T
	dir    string // of the store
	ctx    context.Context
	store  content.Store
	images images.Store
	remote bool
	blobs  map[digest.Digest][]byte
	named  map[digest.Digest]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	db := storetest.NewAt(t, dir)
	ctx := storetest.Leased(namespaces.WithNamespace(t.Context(), "test"), t, db)
	return &bench{
		t: t, dir: dir, ctx: ctx, store: db.ContentStore(), images: metadata.NewImageStore(db),
		blobs: map[digest.Digest][]byte{}, named: map[digest.Digest]string{},
	}
}

func (b *bench) put(name, mediaType string, v any) ocispec.Descriptor {
	b.t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			b.t.Fatal(err)
		}
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b.blobs[desc.Digest], b.named[desc.Digest] = data, name
	if b.remote {
		return desc
	}
	if err := content.WriteBlob(b.ctx, b.store, desc.Digest.String(), strings.NewReader(string(data)), desc); err != nil {
		b.t.Fatal(err)
	}
	return desc
}

func (b *bench) manifest(name string) ocispec.Descriptor {
	b.t.Helper()
	return b.put(name, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Annotations: map[string]string{"name": name},
	})
}

func (b *bench) index(name string, children ...ocispec.Descriptor) ocispec.Descriptor {
	b.t.Helper()
	return b.put(name, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children,
	})
}

// on returns the descriptor as an index names it, for a platform.
func on(platform string, desc ocispec.Descriptor) ocispec.Descriptor {
	p := platforms.MustParse(platform)
	desc.Platform = &p
	return desc
}

// query returns one that asks a registry which knows of no referrers.
func (b *bench) query() *query {
	b.t.Helper()
	server := hostile.New(b.t)
	spec, err := reference.Parse(server.Host() + "/app:v1")
	if err != nil {
		b.t.Fatal(err)
	}
	rules, err := policy.New(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	selection, err := rules.Select(spec.Locator, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	host := server.RegistryHost(docker.HostCapabilityPull | docker.HostCapabilityResolve)
	p := &query{
		t: &Transferrer{config: Config{Store: b.store}}, src: image{b, ocispec.Descriptor{}}, name: spec.String(), selection: selection,
		gather: gather.New(b.ctx, gather.Config{
			Name: spec.String(), Store: b.store, Labeler: stored.NewLabeler(b.store), Selection: selection, Limits: gather.DefaultLimits, Cosign: gather.CosignNever,
			Repository: registry.New(spec, []docker.RegistryHost{host}, nil, registry.Limits{}),
		}),
	}
	b.t.Cleanup(p.gather.Close)
	return p
}

// asked returns what the pull asked about, and the names of the indexes that name it.
func (b *bench) asked(p *query) map[string][]string {
	got := map[string][]string{}
	for _, s := range p.gather.Wait(b.ctx).Subjects {
		parents := []string{}
		for _, parent := range s.Parents {
			parents = append(parents, b.named[parent])
		}
		got[b.named[s.Digest]] = parents
	}
	return got
}

// serve starts a registry that has all that was put on the bench, root as app:v1.
func (b *bench) serve(root ocispec.Descriptor) *hostile.Server {
	b.t.Helper()
	server := hostile.New(b.t)
	for dgst, data := range b.blobs {
		var m struct{ MediaType string }
		if err := json.Unmarshal(data, &m); err != nil {
			b.t.Fatal(err)
		}
		answer := hostile.Content(m.MediaType, data).With("Docker-Content-Digest", dgst.String())
		server.On("/v2/app/manifests/"+dgst.String(), answer)
		server.On("/v2/app/blobs/"+dgst.String(), answer)
		if dgst == root.Digest {
			server.On("/v2/app/manifests/v1", answer)
		}
	}
	return server
}

// served returns app:v1 of such a registry, as CRI hands it over.
func (b *bench) served(root ocispec.Descriptor) *ociregistry.OCIRegistry {
	b.t.Helper()
	src, err := ociregistry.NewOCIRegistry(b.ctx, b.serve(root).Host()+"/app:v1")
	if err != nil {
		b.t.Fatal(err)
	}
	return src
}

// image is an image of the bench's as a transfer's source.
type image struct {
	*bench
	root ocispec.Descriptor
}

var _ transfer.ImageFetcher = image{}

func (i image) Resolve(context.Context) (string, ocispec.Descriptor, error) {
	return "registry.example.com/app:v1", i.root, nil
}

func (i image) Fetcher(context.Context, string) (transfer.Fetcher, error) { return i, nil }

func (i image) Fetch(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := i.blobs[desc.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return io.NopCloser(strings.NewReader(string(data))), nil
}
