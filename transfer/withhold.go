package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/metrics"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// How a rule that verifies holds a pull. Its image's layers, and their config, are children of
// platform manifests: pullStore.ImageFilter gives them to containerd's dispatch only once the
// image is verified (withhold). That is said as soon as the requirements are met, whatever else is
// on its way; the pull is refused when nothing is on its way any more.

// held is the waiting of one pull.
type held struct {
	mu      sync.Mutex // held by the handler that waits; others wait for it
	began   time.Time  // zero until one waits
	refused error
}

// withhold waits until the image is verified, and returns why it is refused. It is called with
// each manifest of the image, and what the manifest names. What another platform's manifest
// names may be pulled with an image that is verified for the platforms that are wanted:
// containerd keeps their metadata, and no layers.
func (p *pull) withhold(ctx context.Context, desc ocispec.Descriptor, children []ocispec.Descriptor, wanted platforms.Matcher) error {
	if p.refused() != nil {
		return p.refused()
	}
	if p.verification == nil || p.selection.Verify() != policy.VerifyEnforce || artifact.IsIndex(desc.MediaType) || len(children) == 0 {
		return nil
	}
	if children[0].MediaType == docker.LegacyConfigMediaType { // the config comes first
		return p.refuse(p.converted())
	}
	if !isBeside(desc, wanted) && !p.verification.HasManifest(desc.Digest) {
		p.verification.Manifest(desc.Digest, "") // which nothing told of: it needs evidence of its own
	}
	p.held.mu.Lock()
	defer p.held.mu.Unlock()
	if p.held.refused != nil {
		return p.held.refused
	}
	if p.held.began.IsZero() {
		p.held.began = time.Now()
		defer func() { p.t.config.Metrics.Withheld(time.Since(p.held.began)) }()
	}
	return p.await(ctx)
}

// converted is the reason for an image that containerd does not store as it was signed.
func (p *pull) converted() string {
	return fmt.Sprintf("image %s is refused: the manifest of %s gives its config the type %s, as old registries did, and containerd stores another in its place, which nobody signed; push the image again, and sign it",
		p.name, verdict.Short(p.root), docker.LegacyConfigMediaType)
}

// await is for those who hold p.held.mu.
func (p *pull) await(ctx context.Context) error {
	timeout := p.t.config.Limits.Timeout
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	timedOut := false
	for {
		changed := p.verification.Changed()
		complete := p.verification.Complete() // before it is, all that it names is on its way
		switch idle := p.gather.Idle(); {
		case complete && p.verification.Holds():
			return nil
		case idle && (complete || timedOut):
			return p.lastResort(ctx)
		}
		select {
		case <-changed:
		case <-timer.C:
			timedOut = true
			p.gather.Stop(fmt.Errorf("not in within %s (key timeout)", timeout))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readIndexes reads the indexes among the children of one, and those within them, before any
// manifest waits: containerd's dispatch goes on to them only when all manifests beside them
// have been handled. Few images have any: each costs a request more.
func (p *pull) readIndexes(ctx context.Context, children []ocispec.Descriptor, wanted []ocispec.Platform) error {
	if p.verification == nil || p.selection.Verify() != policy.VerifyEnforce {
		return nil
	}
	for _, child := range children {
		if !artifact.IsIndex(child.MediaType) || !p.verification.Awaits(child.Digest) {
			continue
		}
		if _, err := p.addManifests(ctx, child, wanted, nil); err != nil {
			return err
		}
	}
	return nil
}

// pulled returns what of a manifest's children, or an index's, may be fetched. What an index
// names besides manifests and indexes belongs to no manifest that was verified, and neither do
// layers of what it calls an attestation.
func (p *pull) pulled(desc ocispec.Descriptor, children []ocispec.Descriptor) []ocispec.Descriptor {
	if p.verification == nil || p.selection.Verify() != policy.VerifyEnforce {
		return children
	}
	return slices.DeleteFunc(slices.Clone(children), func(c ocispec.Descriptor) bool {
		if artifact.IsIndex(desc.MediaType) {
			return !artifact.IsReferrer(c.MediaType)
		}
		return artifact.IsBuildKitEntry(desc) && images.IsLayerType(c.MediaType)
	})
}

// lastResort refuses the image, now that nothing is on its way that could verify it, unless
// what is stored does.
func (p *pull) lastResort(ctx context.Context) error {
	if err := p.addStoredEvidence(ctx, p.gather.ImageSubjects()); err != nil {
		return err
	}
	v := p.verification.Verdict(p.gather.Status)
	switch {
	case v.Result == verdict.Refused:
		p.held.refused = refusal{v.Reason + p.remains()}
	case !p.verification.Complete():
		p.held.refused = refusal{fmt.Sprintf("image %s is refused: %s verifies it, and not all indexes within it could be read; push it again, or pull it by the digest of one platform's manifest", p.name, v.Rule)}
	}
	return p.held.refused
}

// remains says that an image of the same name stays, "" where there is none.
func (p *pull) remains() string {
	if p.prefetch == nil {
		return ""
	}
	return "; the image that is stored under this name stays as it is"
}

// refused returns why the image is refused, nil where it is not, or not yet.
func (p *pull) refused() error {
	p.held.mu.Lock()
	defer p.held.mu.Unlock()
	return p.held.refused
}

// concludeRefusal keeps what is known against an image that was refused before its layers
// were fetched, and tells the operator.
func (p *pull) concludeRefusal(ctx context.Context, refused error) {
	p.ending = metrics.Refused
	p.noteVerdict(ctx, &verdict.Verdict{Result: verdict.Refused, Mode: policy.VerifyEnforce, Rule: p.selection.RuleName(), Reason: strings.TrimPrefix(refused.Error(), verdict.Prefix)})
	if p.gather == nil {
		p.logRefusal(ctx, refused)
		return
	}
	p.gather.Stop(errRefused)
	out := p.gather.Wait(ctx)
	p.report(ctx, out, 0, refused)
	p.markMissing(ctx, out)
}

var errRefused = errors.New("the image was refused before they were in")

// deny refuses an image whose rule denies all of its repository.
func (p *pull) deny() error {
	return p.refuse((&verdict.Case{Image: p.name, Selection: p.selection}).Judge().Reason)
}

// refuse refuses an image before anything of it is fetched.
func (p *pull) refuse(reason string) error {
	p.held.mu.Lock()
	defer p.held.mu.Unlock()
	p.held.refused = refusal{reason}
	return p.held.refused
}
