package transfer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
)

// Whatever containerd may come to run has been asked about, however an index names it.
func TestWhatCanBeRunIsAskedAbout(t *testing.T) {
	db := storetest.New(t)
	ctx := namespaces.WithNamespace(t.Context(), "test")
	lease, err := metadata.NewLeaseManager(db).Create(ctx, leases.WithRandomID())
	if err != nil {
		t.Fatal(err)
	}
	ctx = leases.WithLease(ctx, lease.ID)
	put := func(mediaType string, v any) ocispec.Descriptor {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		if err := content.WriteBlob(ctx, db.ContentStore(), desc.Digest.String(), strings.NewReader(string(data)), desc); err != nil {
			t.Fatal(err)
		}
		return desc
	}
	named := map[digest.Digest]string{}
	manifest := func(name string) ocispec.Descriptor {
		desc := put(ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Annotations: map[string]string{"name": name},
		})
		named[desc.Digest] = name
		return desc
	}
	index := func(name string, children ...ocispec.Descriptor) ocispec.Descriptor {
		desc := put(ocispec.MediaTypeImageIndex, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children,
		})
		named[desc.Digest] = name
		return desc
	}
	on := func(platform string, desc ocispec.Descriptor) ocispec.Descriptor {
		if platform != "" {
			p := platforms.MustParse(platform)
			desc.Platform = &p
		}
		return desc
	}
	attestation := func(desc ocispec.Descriptor) ocispec.Descriptor {
		desc.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest.FromString("x").String()}
		return desc
	}
	nested := index("nested", on("linux/amd64", manifest("in nested")))
	root := index("root",
		on("linux/amd64", manifest("plain")),
		on("linux/arm64", manifest("of another platform")),
		on("", manifest("of no platform")),
		attestation(on("linux/amd64", manifest("called an attestation"))),
		attestation(on("", manifest("called an attestation, of no platform"))),
		attestation(on("unknown/unknown", manifest("an attestation"))),
		nested)

	server := hostile.New(t) // has nothing
	spec, err := reference.Parse(server.Host() + "/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	selection, err := rules.Select(spec.Locator, nil)
	if err != nil {
		t.Fatal(err)
	}
	host := server.RegistryHost(docker.HostCapabilityPull | docker.HostCapabilityResolve)
	p := &pull{t: &Transferrer{}, gather: gather.New(ctx, gather.Config{
		Name: spec.String(), Store: db.ContentStore(), Selection: selection, Limits: gather.DefaultLimits, Cosign: gather.CosignNever,
		Registry: discovery.Registry{Repository: remote.New(spec, []docker.RegistryHost{host}, nil, remote.Limits{})},
	})}
	defer p.gather.Close()
	p.gather.Image(root)
	store := &pullStore{destination: destination{image.NewStore(spec.String(), image.WithPlatforms(platforms.MustParse("linux/amd64")))}, p: p}
	if err := images.Dispatch(ctx, store.ImageFilter(images.ChildrenHandler(db.ContentStore()), db.ContentStore()), nil, root); err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, s := range p.gather.Wait(ctx).Subjects {
		parents := []string{}
		for _, parent := range s.Parents {
			parents = append(parents, named[parent])
		}
		got[named[s.Digest]] = parents
	}
	want := map[string][]string{
		"root": {}, "nested": {"root"}, "in nested": {"nested"},
		"plain": {"root"}, "of no platform": {"root"},
		"called an attestation": {"root"}, "called an attestation, of no platform": {"root"},
	}
	for name, parents := range want {
		if have, ok := got[name]; !ok || !slices.Equal(have, parents) {
			t.Errorf("%s: asked about %t, below %q, want below %q", name, ok, have, parents)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s was asked about", name)
		}
	}
}
