package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/metrics"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// How a rule that verifies holds a pull. Its image's layers, and their config, are children of
// platform manifests: pullStore.ImageFilter gives them to containerd's dispatch only once the
// image is verified (hold). That is said as soon as the requirements are met, whatever else is
// on its way; the pull is refused when nothing is on its way any more.

// refusal is an error that a rule refuses an image with. It is of no class of errdefs: the
// kubelet shows its text, which begins with verdict.Prefix, only for errors of the code Unknown.
type refusal struct{ reason string }

func (r refusal) Error() string { return verdict.Prefix + r.reason }

// openCase opens the case of an image whose rule verifies it.
func (q *query) openCase(ctx context.Context, root ocispec.Descriptor, repository string, config *gather.Config) {
	if q.selection.Verify() == "" {
		return
	}
	read, readManifest := judge.FromStore(q.t.config.Store), judge.ManifestFromStore(q.t.config.Store)
	if config.Dry {
		read, readManifest = blobFromRegistry(config.Repository, read), manifestFromRegistry(config.Repository, readManifest)
	}
	q.verification = q.t.config.Judge.Open(ctx, judge.Config{Image: q.name, Repository: repository, Selection: q.selection, Read: read, ReadManifest: readManifest, Far: config.Dry})
	config.Examiner = q.verification
	q.addToCase(root, "")
}

// addToCase names a manifest or an index of the image.
func (q *query) addToCase(desc ocispec.Descriptor, platform string, parents ...digest.Digest) {
	switch {
	case q.verification == nil:
	case artifact.IsIndex(desc.MediaType):
		q.verification.Index(desc.Digest, parents...)
	case artifact.IsManifest(desc.MediaType):
		q.verification.Manifest(desc.Digest, platform, parents...)
	}
}

// manifestFromRegistry returns what reads manifests of referrers that are not stored, as where
// nothing is.
func manifestFromRegistry(repository gather.Repository, read judge.ReadFunc) judge.ReadFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
		if data, err := read(ctx, desc); err == nil {
			return data, nil
		}
		return repository.Manifest(ctx, desc)
	}
}

// blobFromRegistry returns what reads evidence that is not stored.
func blobFromRegistry(repository gather.Repository, read judge.ReadFunc) judge.ReadFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
		if data, err := read(ctx, desc); err == nil {
			return data, nil
		}
		if err := artifact.Check(desc, evidence.MaxSize); err != nil {
			return nil, err
		}
		var buffer bytes.Buffer
		err := repository.Blob(ctx, desc, func(r io.Reader) error {
			buffer.Reset() // of an attempt that broke off
			_, err := io.Copy(&buffer, io.LimitReader(r, desc.Size+1))
			return err
		})
		if err != nil {
			return nil, err
		}
		return buffer.Bytes(), artifact.Verify(buffer.Bytes(), desc)
	}
}

// addStoredEvidence examines what earlier pulls tied to the image: where the registry gave no
// answer, what is stored counts. What it is known to have withdrawn does not.
func (q *query) addStoredEvidence(ctx context.Context, subjects []ocispec.Descriptor) error {
	for _, s := range subjects {
		if _, err := q.t.config.Store.Info(ctx, s.Digest); err != nil {
			continue // nothing can be tied to it
		}
		keeps := func(subject, referrer digest.Digest) bool { return q.gather.Keeps(ctx, subject, referrer) }
		if err := q.verification.AddStored(ctx, q.t.config.Store, s, keeps); err != nil {
			return err
		}
	}
	return nil
}

// verdict says what the evidence amounts to, now that the gather has ended; nil where the
// rule verifies nothing.
func (q *query) verdict(ctx context.Context, out *outcome.Outcome) (*verdict.Verdict, error) {
	if q.verification == nil {
		return nil, nil
	}
	q.verification.Refresh(ctx)
	if !q.verification.Holds() {
		if err := q.addStoredEvidence(ctx, imageSubjects(out)); err != nil {
			return nil, err
		}
	}
	return q.verification.Verdict(statusIn(out)), nil
}

func imageSubjects(out *outcome.Outcome) []ocispec.Descriptor {
	var subjects []ocispec.Descriptor
	for _, s := range out.Subjects {
		if s.Image {
			subjects = append(subjects, ocispec.Descriptor{Digest: s.Digest, MediaType: s.MediaType, Size: s.Size})
		}
	}
	return subjects
}

func statusIn(out *outcome.Outcome) func(digest.Digest) (labels.Status, string) {
	return func(dgst digest.Digest) (labels.Status, string) {
		for _, s := range out.Subjects {
			if s.Digest == dgst {
				return s.Status, s.Why
			}
		}
		return labels.Unknown, "it was not asked about"
	}
}

// held is the waiting of one pull.
type held struct {
	mu      sync.Mutex // held by the handler that waits; others wait for it
	began   time.Time  // zero until one waits
	refused error
}

// hold waits until the image is verified, and returns why it is refused. It is called with
// each manifest of the image, and what the manifest names. What another platform's manifest
// names may be pulled with an image that is verified for the platforms that are wanted:
// containerd keeps their metadata, and no layers.
func (p *pull) hold(ctx context.Context, desc ocispec.Descriptor, children []ocispec.Descriptor, wanted platforms.Matcher) error {
	if p.refused() != nil {
		return p.refused()
	}
	if p.verification == nil || p.selection.Verify() != policy.VerifyEnforce || artifact.IsIndex(desc.MediaType) || len(children) == 0 {
		return nil
	}
	foreign := artifact.IsBuildKitEntry(desc) || desc.Platform != nil && !wanted.Match(*desc.Platform)
	if !foreign && !p.verification.Names(desc.Digest) {
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
// have been handled. Few images have any; containerd then fetches them from the registry's
// cache, or its own.
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

// showSigners tells the client who signed, beneath the manifests that they signed.
func (q *query) showSigners(ctx context.Context, v *verdict.Verdict) {
	if q.progress == nil || v == nil {
		return
	}
	for _, m := range v.Manifests {
		parent := remotes.MakeRefKey(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: m.Digest})
		shown := map[string]bool{}
		for _, n := range m.Needs {
			for _, id := range n.Identities {
				if !shown[id] {
					shown[id] = true
					q.progress(transfer.Progress{Event: "verified: " + id, Name: fmt.Sprintf("signer-%d-%s", len(shown), m.Digest), Parents: []string{parent}})
				}
			}
		}
		if !m.Verified {
			q.progress(transfer.Progress{Event: "not verified: see ctr referrers explain", Name: "signer-0-" + m.Digest.String(), Parents: []string{parent}})
		}
	}
}
