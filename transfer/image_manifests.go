package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// What of an image's index the gather is told of. A pull tells as containerd's dispatch
// comes to each index (addChildren); explain and fetch transfer no image content, so that
// no dispatch walks the image, and walk it themselves (addManifests).

// resolve returns what the reference names: from the store, where it has a digest
// that is there, so that a registry that fails can be explained as well.
func (q *query) resolve(ctx context.Context) (string, ocispec.Descriptor, error) {
	s := q.opened
	spec, err := reference.Parse(s.Image())
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	info, err := q.t.config.Store.Info(ctx, spec.Digest())
	if spec.Digest() == "" || err != nil {
		return s.Resolve(ctx)
	}
	desc := ocispec.Descriptor{Digest: info.Digest, Size: info.Size}
	m, err := stored.Manifest(ctx, q.t.config.Store, desc)
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	desc.MediaType = m.MediaType
	return s.Image(), desc, nil
}

// imageManifests are those of an image that the gather asks about.
type imageManifests struct {
	platformOf map[string]string // by digest
	manifests  int               // those that are no index
	named      []string          // the platforms that the indexes name, wanted or not
}

// addManifests tells the gather of the manifests of the platforms as a pull's
// dispatch would: of those in the image's index and in the indexes within it. No
// platforms means all. of, if not nil, narrows what the indexes name.
func (q *query) addManifests(ctx context.Context, root ocispec.Descriptor, wanted []ocispec.Platform, of func(context.Context, ocispec.Descriptor) bool) (*imageManifests, error) {
	out := &imageManifests{platformOf: map[string]string{}}
	if !artifact.IsIndex(root.MediaType) {
		out.manifests = 1
		return out, nil
	}
	var attested attestations
	matches := matcher(wanted)
	children := images.FilterPlatforms(attested.note(out.note(q.narrowed(of))), matches)
	err := stored.WalkImage(ctx, root, func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if !artifact.IsIndex(desc.MediaType) {
			return nil, nil
		}
		below, err := children(ctx, desc)
		if err != nil {
			return nil, err
		}
		q.addChildren(desc, below, matches, &attested)
		out.add(below)
		return below, nil
	})
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", q.name, err)
	}
	return out, nil
}

// narrowed returns a handler that reads an index of the image, and of what it names
// leaves out what is not wanted.
func (q *query) narrowed(of func(context.Context, ocispec.Descriptor) bool) images.HandlerFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		data, err := q.read(ctx, desc)
		if err != nil {
			return nil, err
		}
		desc.Data = data // which containerd reads in place of a store's
		all, err := images.Children(ctx, nil, desc)
		if err != nil {
			return nil, err
		}
		var out []ocispec.Descriptor
		for _, c := range all {
			if err := c.Digest.Validate(); err != nil {
				return nil, fmt.Errorf("it names a manifest by the digest %.80q: %w: %w", c.Digest, err, errdefs.ErrInvalidArgument)
			}
			if of == nil || artifact.IsBuildKitEntry(c) || of(ctx, c) {
				out = append(out, c)
			}
		}
		return out, nil
	}
}

// note notes the platforms that an index names.
func (m *imageManifests) note(h images.HandlerFunc) images.HandlerFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, desc)
		for _, c := range children {
			if c.Platform != nil && !artifact.IsBuildKitEntry(c) {
				m.named = append(m.named, platforms.FormatAll(*c.Platform))
			}
		}
		return children, err
	}
}

func (m *imageManifests) add(children []ocispec.Descriptor) {
	for _, c := range children {
		if artifact.IsBuildKitEntry(c) {
			continue
		}
		if images.IsManifestType(c.MediaType) {
			m.manifests++
		}
		if c.Platform != nil {
			m.platformOf[c.Digest.String()] = platforms.FormatAll(*c.Platform)
		}
	}
}

// noneFor is the error of an image without a manifest for any of the platforms.
func (m *imageManifests) noneFor(wanted []ocispec.Platform, image string) error {
	named := "no platform"
	if len(m.named) > 0 {
		slices.Sort(m.named)
		named = outcome.Shorten(strings.Join(slices.Compact(m.named), ", "))
	}
	return fmt.Errorf("image %s has no manifest for %s: its index names %s: %w", image, platformNames(wanted), named, errdefs.ErrNotFound)
}

// orDefault returns the daemon's own platform where a client named none.
func orDefault(wanted []ocispec.Platform) []ocispec.Platform {
	if len(wanted) == 0 {
		return []ocispec.Platform{platforms.DefaultSpec()}
	}
	return wanted
}

// read returns the image's index: from the store, or from the registry. It is
// verified in either case, since a disk can fail as well.
func (q *query) read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := artifact.Check(desc, artifact.MaxManifestSize); err != nil {
		return nil, err
	}
	if _, err := q.t.config.Store.Info(ctx, desc.Digest); err == nil {
		data, err := stored.ReadManifest(ctx, q.t.config.Store, desc)
		if err != nil {
			return nil, err
		}
		return data, artifact.Verify(data, desc)
	}
	f, err := q.src.Fetcher(ctx, q.name)
	if err != nil {
		return nil, err
	}
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(rc, desc.Size+1))
	if err := errors.Join(err, rc.Close()); err != nil {
		return nil, err
	}
	return data, artifact.Verify(data, desc)
}

// addChildren tells the gather of what an index of the image names and the pull is
// for, and of the attestations of that.
func (q *query) addChildren(index ocispec.Descriptor, children []ocispec.Descriptor, wanted platforms.Matcher, attested *attestations) {
	if q.gather == nil || !artifact.IsIndex(index.MediaType) {
		return
	}
	for _, child := range children {
		if isBeside(child, wanted) {
			continue
		}
		platform := ""
		if child.Platform != nil {
			platform = platforms.FormatAll(*child.Platform)
		}
		q.addToCase(child, platform, index.Digest)
		q.gather.Image(child, index.Digest)
		for _, a := range attested.of(child.Digest) {
			q.gather.Embedded(child.Digest, a)
		}
	}
	if q.verification != nil {
		q.verification.IndexRead(index.Digest)
	}
}

// isBeside reports whether a manifest or index of an image is none that the pull is for: of
// another platform, or BuildKit's attestation of one. Nobody is asked about it, and no evidence
// is needed for it; nothing can be run of it either.
func isBeside(desc ocispec.Descriptor, wanted platforms.Matcher) bool {
	return artifact.IsBuildKitEntry(desc) || desc.Platform != nil && !wanted.Match(*desc.Platform)
}

// matcher returns what tells the platforms from others; none means all.
func matcher(wanted []ocispec.Platform) platforms.MatchComparer {
	if len(wanted) == 0 {
		return platforms.All
	}
	return platforms.Ordered(wanted...)
}
