package transfer

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// How a rule that verifies holds an import. Its content is in the store, and the referrers
// that the archive carries are tied, when the first image record would be written: each
// record under a ruled name is judged then, from the store alone, as `ctr referrers verify`
// does. What was signed is with the image, or was here before it.

// judgedRecords are image records that are written only of images that may run.
type judgedRecords struct {
	images.Store
	t         *Transferrer
	platforms []ocispec.Platform // that are imported; none means all
	except    string             // a name whose repository has been judged, "" for none
	refused   error
}

// Create implements images.Store.
func (j *judgedRecords) Create(ctx context.Context, image images.Image) (images.Image, error) {
	if err := j.judge(ctx, image); err != nil {
		return images.Image{}, err
	}
	return j.Store.Create(ctx, image)
}

// Update implements images.Store.
func (j *judgedRecords) Update(ctx context.Context, image images.Image, fields ...string) (images.Image, error) {
	if err := j.judge(ctx, image); err != nil {
		return images.Image{}, err
	}
	return j.Store.Update(ctx, image, fields...)
}

// judge returns why a rule refuses the image, as a refusal. A name that is no reference has
// no repository, and so no rule.
func (j *judgedRecords) judge(ctx context.Context, image images.Image) error {
	spec, err := reference.Parse(image.Name)
	if err != nil {
		return nil
	}
	if judged, err := reference.Parse(j.except); err == nil && policy.SameRepository(judged.Locator, spec.Locator) {
		return nil
	}
	v, err := j.t.verifyStored(ctx, image, j.platforms, len(j.platforms) == 0, true)
	if err != nil {
		return fmt.Errorf("image %s: %w", image.Name, err)
	}
	if v.Result == verdict.Unverified {
		return nil
	}
	j.t.config.Metrics.Verdict(v.Result, v.Mode)
	if v.Result == verdict.Verified {
		return nil
	}
	log := log.G(ctx).WithFields(log.Fields{"image": image.Name, "digest": image.Target.Digest, "rule": v.Rule, "reason": v.Reason})
	if v.Mode == policy.VerifyWarn {
		log.Warnf("referrers: the image is not verified, and verify = %q lets it be stored", v.Mode)
		return nil
	}
	log.Warn("referrers: image refused")
	j.refused = refusal{v.Reason}
	return j.refused
}
