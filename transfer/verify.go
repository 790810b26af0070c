package transfer

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// verify judges an image by what is stored, with the rules and trusts of now. No registry is
// asked, and nothing changed.
func (t *Transferrer) verify(ctx context.Context, src transfer.ImageGetter, dst *explain.VerifyDestination) error {
	image, err := src.Get(ctx, t.config.Images)
	if err != nil {
		return err
	}
	v, err := t.verifyStored(ctx, image, dst.Platforms(), dst.AllPlatforms(), false)
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

// verifyStored judges an image by what is stored, for the platforms that are wanted or for all
// that are stored. incoming says that an import brings it, so that it has no record yet.
func (t *Transferrer) verifyStored(ctx context.Context, image images.Image, wanted []ocispec.Platform, all, incoming bool) (*verdict.Verdict, error) {
	spec, err := reference.Parse(image.Name)
	if err != nil {
		return nil, fmt.Errorf("its name tells no repository, so that no rule can be found for it: %w", err)
	}
	selection, err := t.config.Policy.Select(spec.Locator, nil)
	if err != nil {
		return nil, err
	}
	if !all {
		wanted = orDefault(wanted)
	}
	v, _, err := t.config.Judge.Stored(ctx, t.config.Store, judge.Image{Name: image.Name, Repository: spec.Locator, Target: image.Target, Selection: selection, Platforms: wanted, Incoming: incoming})
	return v, err
}
