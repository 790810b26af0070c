package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

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
