package transfer

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// verify judges an image by what is stored, with the rules and trusts of now. No registry is
// asked, and nothing changed.
func (t *Transferrer) verify(ctx context.Context, src transfer.ImageGetter, dst *explain.VerifyDestination) error {
	image, err := src.Get(ctx, t.config.Images)
	if err != nil {
		return err
	}
	v, err := t.verifyStored(ctx, image, dst.Platforms(), dst.AllPlatforms())
	if err != nil {
		return fmt.Errorf("image %s: %w", image.Name, err)
	}
	return dst.Send(&explain.Verification{Image: image.Name, Digest: image.Target.Digest, Unselected: t.unselected(image.Name), Verdict: v})
}

// unselected reports whether no rule selects referrers of the image.
func (t *Transferrer) unselected(name string) bool {
	spec, err := reference.Parse(name)
	if err != nil {
		return false
	}
	selection, err := t.config.Policy.Select(spec.Locator, nil)
	return err == nil && selection.Empty()
}

func (t *Transferrer) verifyStored(ctx context.Context, image images.Image, wanted []ocispec.Platform, all bool) (*verdict.Verdict, error) {
	spec, err := reference.Parse(image.Name)
	if err != nil {
		return nil, fmt.Errorf("its name tells no repository, so that no rule can be found for it: %w", err)
	}
	selection, err := t.config.Policy.Select(spec.Locator, nil)
	if err != nil {
		return nil, err
	}
	if selection.Denied() || selection.Verify() == "" {
		return (&verdict.Case{Image: image.Name, Selection: selection}).Judge(), nil
	}
	s := storedCase{store: t.config.Store, status: map[digest.Digest]labels.Status{}}
	s.Case = t.config.Judge.Open(ctx, judge.Config{Image: image.Name, Repository: spec.Locator, Selection: selection, Read: judge.FromStore(t.config.Store), ReadManifest: judge.ManifestFromStore(t.config.Store)})
	if !all {
		s.wanted = orDefault(wanted)
	}
	if err := s.add(ctx, image.Target); err != nil {
		return nil, err
	}
	if s.manifests == 0 {
		return nil, fmt.Errorf("no manifest for %s is stored; name the platform that it was pulled for: %w", platformNames(s.wanted), errdefs.ErrNotFound)
	}
	return s.Verdict(s.known), nil
}

// storedCase is the case of an image that is stored.
type storedCase struct {
	*judge.Case
	store     stored.Store
	wanted    []ocispec.Platform // none means all
	manifests int
	status    map[digest.Digest]labels.Status
}

// add goes down the image, and examines what is tied to each of its parts.
func (s *storedCase) add(ctx context.Context, root ocispec.Descriptor) error {
	return stored.WalkImage(ctx, root, func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		info, err := s.store.Info(ctx, desc.Digest)
		if err != nil {
			return nil, err
		}
		s.status[desc.Digest], _ = labels.ReadCheckmark(info.Labels)
		if err := s.AddStored(ctx, s.store, desc, nil); err != nil {
			return nil, err
		}
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
// all that are stored, or for each platform that is wanted the best, as containerd finds it.
func (s *storedCase) choose(ctx context.Context, all []ocispec.Descriptor) []ocispec.Descriptor {
	all = slices.DeleteFunc(all, func(c ocispec.Descriptor) bool {
		_, err := s.store.Info(ctx, c.Digest)
		return err != nil || artifact.IsBuildKitEntry(c) || !artifact.IsReferrer(c.MediaType)
	})
	if len(s.wanted) == 0 {
		return all
	}
	var out []ocispec.Descriptor
	for _, c := range all {
		if artifact.IsIndex(c.MediaType) || c.Platform == nil {
			out = append(out, c)
		}
	}
	for _, p := range s.wanted {
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
