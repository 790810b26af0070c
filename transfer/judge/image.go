package judge

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// Image is an image that is stored.
type Image struct {
	// Name is its reference, Repository that without tag and digest, Target its root.
	Name, Repository string
	Target           ocispec.Descriptor
	// Selection governs the image.
	Selection *policy.Selection
	// Platforms are those that are judged; none means all that are stored. Where Config is
	// not empty it is the manifests with that config, whatever they are for.
	Platforms []ocispec.Platform
	Config    digest.Digest
	// Early ends the examination when the image is verified: what has not been examined then
	// is not in the verdict.
	Early bool
	// Incoming says that the image has no record yet: an import brings it.
	Incoming bool
}

// Subject is a part of an image, or a referrer that is signed itself, by what was tied to it
// when it was looked at.
type Subject struct {
	Digest digest.Digest
	// Fingerprint is that of its labels, [labels.Fingerprint].
	Fingerprint uint64
}

// Stored judges an image by what is stored, with the trusts of now. No registry is asked, and
// nothing changed. It returns of what the verdict was made as well: as long as none of that
// has changed, and no trust, another verdict would have the same result but for the time of day. The
// error is errdefs.ErrNotFound where no manifest of the image that should be judged is stored.
func (j *Judge) Stored(ctx context.Context, store stored.Store, image Image) (*verdict.Verdict, []Subject, error) {
	if image.Selection.Denied() || image.Selection.Verify() == "" {
		return (&verdict.Case{Image: image.Name, Selection: image.Selection}).Judge(), nil, nil
	}
	s := storedCase{image: image, store: store, status: map[digest.Digest]labels.Status{}}
	s.Case = j.Open(ctx, Config{Image: image.Name, Repository: image.Repository, Selection: image.Selection, Read: FromStore(store), ReadManifest: ManifestFromStore(store), Recorded: !image.Incoming})
	s.early = image.Early
	if err := s.addImage(ctx); err != nil {
		return nil, nil, err
	}
	if s.manifests == 0 && image.Config != "" {
		return nil, nil, fmt.Errorf("no manifest with the config %s is stored: %w", image.Config, errdefs.ErrNotFound)
	}
	if s.manifests == 0 {
		return nil, nil, fmt.Errorf("no manifest for %s is stored; name the platform that it was pulled for: %w", platformNames(image.Platforms), errdefs.ErrNotFound)
	}
	return s.Verdict(s.known), s.Subjects(), nil
}

// storedCase is the case of an image that is stored.
type storedCase struct {
	*Case
	image     Image
	store     stored.Store
	manifests int
	status    map[digest.Digest]labels.Status
}

// addImage goes down the image, and then examines what is tied to each of its parts.
func (s *storedCase) addImage(ctx context.Context) error {
	parts, err := s.walk(ctx)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err := s.AddStored(ctx, s.store, part, nil); err != nil {
			return err
		}
		if s.early && s.Holds() {
			return nil
		}
	}
	return nil
}

// walk names the indexes and manifests of the image that are judged.
func (s *storedCase) walk(ctx context.Context) ([]ocispec.Descriptor, error) {
	var parts []ocispec.Descriptor
	root := s.image.Target
	err := stored.WalkImage(ctx, root, func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		info, err := s.store.Info(ctx, desc.Digest)
		if err != nil {
			return nil, err
		}
		s.status[desc.Digest], _ = labels.ReadCheckmark(info.Labels)
		parts = append(parts, desc)
		if !artifact.IsIndex(desc.MediaType) {
			if desc.Digest == root.Digest {
				s.manifest(desc)
			}
			return nil, nil
		}
		all, err := stored.ImageManifests(ctx, s.store, desc)
		if err != nil {
			return nil, err
		}
		below := s.choose(ctx, all)
		for _, c := range below {
			s.manifest(c, desc.Digest)
		}
		return below, nil
	})
	return parts, err
}

func (s *storedCase) manifest(desc ocispec.Descriptor, parents ...digest.Digest) {
	if artifact.IsIndex(desc.MediaType) {
		s.Index(desc.Digest, parents...)
		return
	}
	platform := ""
	if desc.Platform != nil {
		platform = platforms.FormatAll(*desc.Platform)
	}
	s.manifests++
	s.Manifest(desc.Digest, platform, parents...)
}

// choose returns the indexes among what an index names, and the manifests that would be run:
// all that are stored, those with the config that is run, or for each platform that is wanted
// the best, as containerd finds it.
func (s *storedCase) choose(ctx context.Context, all []ocispec.Descriptor) []ocispec.Descriptor {
	all = slices.DeleteFunc(all, func(c ocispec.Descriptor) bool {
		_, err := s.store.Info(ctx, c.Digest)
		return err != nil || artifact.IsBuildKitEntry(c) || !artifact.IsReferrer(c.MediaType)
	})
	if s.image.Config != "" {
		return slices.DeleteFunc(all, func(c ocispec.Descriptor) bool {
			return !artifact.IsIndex(c.MediaType) && stored.ConfigOf(ctx, s.store, c) != s.image.Config
		})
	}
	if len(s.image.Platforms) == 0 {
		return all
	}
	var out []ocispec.Descriptor
	for _, c := range all {
		if artifact.IsIndex(c.MediaType) || c.Platform == nil {
			out = append(out, c)
		}
	}
	for _, p := range s.image.Platforms {
		matches := platforms.Only(p)
		best := slices.DeleteFunc(slices.Clone(all), func(c ocispec.Descriptor) bool {
			return c.Platform == nil || artifact.IsIndex(c.MediaType) || !matches.Match(*c.Platform)
		})
		slices.SortStableFunc(best, func(a, b ocispec.Descriptor) int {
			switch {
			case matches.Less(*a.Platform, *b.Platform):
				return -1
			case matches.Less(*b.Platform, *a.Platform):
				return 1
			}
			return 0
		})
		if len(best) > 0 && !slices.ContainsFunc(out, func(c ocispec.Descriptor) bool { return c.Digest == best[0].Digest }) {
			out = append(out, best[0])
		}
	}
	return out
}

// known says how well the referrers of a subject were known when it was asked about last.
func (s *storedCase) known(dgst digest.Digest) (labels.Status, string) {
	if status := s.status[dgst]; status != "" {
		return status, "when it was asked about last"
	}
	return labels.Unknown, "it was never asked about"
}

func platformNames(list []ocispec.Platform) string {
	var names []string
	for _, w := range list {
		names = append(names, platforms.FormatAll(w))
	}
	return strings.Join(names, ", ")
}
