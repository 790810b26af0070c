package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// record is a name of an image, and what it leads to.
type record struct {
	name       string
	repository string // without tag and digest; the whole name where that is no reference
	target     ocispec.Descriptor
}

// names returns the records of the namespace that lead to the image, the runtime's own name
// first and then sorted. A name that the runtime gives and that has no record, or one of
// another image by now, is one of them. So is the digest where there is no other: only a rule
// for all repositories governs it.
func (g *Gate) names(ctx context.Context, image Image) ([]record, error) {
	for _, d := range []digest.Digest{image.Digest, image.Config} {
		if err := d.Validate(); d != "" && err != nil {
			return nil, fmt.Errorf("digest %.80q: %w", d, err)
		}
	}
	all, err := g.config.Images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the images: %w", err)
	}
	updated := map[digest.Digest]time.Time{}
	for _, i := range all {
		if t := updated[i.Target.Digest]; i.UpdatedAt.After(t) {
			updated[i.Target.Digest] = i.UpdatedAt
		}
	}
	var out []record
	for _, i := range all {
		if i.Target.Digest == image.Digest || g.leads(ctx, i, updated[i.Target.Digest], image) {
			out = append(out, recordOf(i.Name, i.Target))
		}
	}
	own := slices.ContainsFunc(out, func(r record) bool { return r.name == image.Name })
	if !own && image.Digest != "" {
		target, err := g.describe(ctx, image.Digest)
		if err != nil {
			return nil, err
		}
		out = append(out, recordOf(image.String(), target))
	}
	// CRI names each image by its config's digest as well, which is in no repository.
	if slices.ContainsFunc(out, func(r record) bool { return !r.isDigest() }) {
		out = slices.DeleteFunc(out, record.isDigest)
	}
	if len(out) == 0 && image != (Image{}) {
		return nil, errors.New("no image record leads to it, and the runtime names no digest of it")
	}
	slices.SortFunc(out, func(a, b record) int {
		if own := a.name == image.Name; own != (b.name == image.Name) {
			if own {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.name, b.name)
	})
	return out, nil
}

func recordOf(name string, target ocispec.Descriptor) record {
	r := record{name: name, repository: name, target: target}
	if spec, err := reference.Parse(name); err == nil {
		r.repository = spec.Locator
	}
	return r
}

// isDigest reports whether the name is no more than a digest.
func (r record) isDigest() bool { return digest.Digest(r.name).Validate() == nil }

// in reports whether two records are of one repository.
func (r record) in(repository string) bool {
	return policy.NormalizeRepository(r.repository) == policy.NormalizeRepository(repository)
}

// describe returns the descriptor of an index or manifest that is stored.
func (g *Gate) describe(ctx context.Context, dgst digest.Digest) (ocispec.Descriptor, error) {
	info, err := g.config.Store.Info(ctx, dgst)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{Digest: dgst, Size: info.Size}
	data, err := stored.ReadBlob(ctx, g.config.Store, desc, artifact.MaxManifestSize)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m, err := artifact.Parse(data, "")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc.MediaType = m.MediaType
	return desc, nil
}

// leads reports whether a record's image holds the manifest of another, or one with its config.
func (g *Gate) leads(ctx context.Context, i images.Image, updated time.Time, image Image) bool {
	for _, dgst := range g.contents.of(ctx, g.config.Store, i.Target, updated) {
		if dgst == image.Digest || dgst == image.Config {
			return true
		}
	}
	return false
}

// maxContents is of how many images it is remembered what they hold.
const maxContents = 1 << 16

// contents remembers which manifests and configs the stored images hold. That changes where
// another platform of one is pulled, which updates a record of it.
type contents struct {
	mu    sync.Mutex
	known map[heldBy]holding
}

type heldBy struct {
	namespace string
	root      digest.Digest
}

type holding struct {
	digests []digest.Digest
	updated time.Time
}

// of returns the digests of all indexes, manifests and configs of an image that are stored,
// none where it cannot be read: nothing runs of it then.
func (c *contents) of(ctx context.Context, store stored.Store, root ocispec.Descriptor, updated time.Time) []digest.Digest {
	namespace, _ := namespaces.Namespace(ctx)
	by := heldBy{namespace, root.Digest}
	c.mu.Lock()
	h, ok := c.known[by]
	c.mu.Unlock()
	if ok && h.updated.Equal(updated) {
		return h.digests
	}
	found, err := digestsOf(ctx, store, root)
	if err != nil || len(found) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxContents {
		c.known = map[heldBy]holding{}
	}
	c.known[by] = holding{found, updated}
	return found
}

func digestsOf(ctx context.Context, store stored.Store, root ocispec.Descriptor) ([]digest.Digest, error) {
	var out []digest.Digest
	manifests := 0
	err := stored.WalkImage(ctx, root, func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if artifact.IsIndex(desc.MediaType) {
			below, err := stored.ImageManifests(ctx, store, desc)
			if err != nil && desc.Digest != root.Digest {
				return nil, nil // of a platform that is not stored
			}
			out = append(out, desc.Digest)
			return slices.DeleteFunc(below, func(c ocispec.Descriptor) bool { return artifact.IsBuildKitEntry(c) }), err
		}
		if config := stored.ConfigOf(ctx, store, desc); config != "" {
			out = append(out, desc.Digest, config)
			manifests++
		}
		return nil, nil
	})
	if manifests == 0 { // more may come
		return nil, err
	}
	return out, err
}
