package archive

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// maxReferrers is how many referrers one subject may get from an archive. Each
// becomes a label.
const maxReferrers = 1000

// maxWarnings is how many of an archive's referrers that are left out are logged
// one by one.
const maxWarnings = 10

// Restore ties the referrers that an archive's index carries, each annotated with
// its subject, to the subjects that came with it, and those to theirs. The content
// is in the store already, which has verified its digests. It returns how many
// referrers it tied.
//
// What is not complete, or names another subject than its annotation says, is left
// out and logged. The error is of the store.
func Restore(ctx context.Context, store stored.Store, labeler *stored.Labeler, subjects []digest.Digest, carried []ocispec.Descriptor) (int, error) {
	r := &restorer{store: store, content: newKeeper(store, labeler), bySubject: map[digest.Digest][]ocispec.Descriptor{}}
	for _, desc := range carried {
		subject := Subject(desc)
		r.bySubject[subject] = append(r.bySubject[subject], desc)
	}
	restored := 0
	for ; len(subjects) > 0; subjects = subjects[1:] {
		complete, err := r.referrersOf(ctx, subjects[0])
		if err != nil {
			return restored, err
		}
		if len(complete) == 0 {
			continue
		}
		if err := labeler.Tie(ctx, subjects[0], complete...); err != nil {
			return restored, err
		}
		restored += len(complete)
		subjects = append(subjects, complete...)
	}
	if r.leftOut > maxWarnings {
		log.G(ctx).Warnf("referrers: %d more not imported", r.leftOut-maxWarnings)
	}
	for subject, others := range r.bySubject {
		log.G(ctx).WithField("subject", subject).WithField("referrers", len(others)).Debug("referrers: not imported: their subject is not")
	}
	return restored, nil
}

// restorer is the work of one import.
type restorer struct {
	store     stored.Store
	content   *keeper
	bySubject map[digest.Digest][]ocispec.Descriptor // those that are not restored yet
	leftOut   int
}

// referrersOf returns the subject's referrers that pass the check, once: none is met twice
// in a circle.
func (r *restorer) referrersOf(ctx context.Context, subject digest.Digest) ([]digest.Digest, error) {
	referrers := r.bySubject[subject]
	delete(r.bySubject, subject)
	var complete []digest.Digest
	for i, desc := range referrers {
		if slices.Contains(complete, desc.Digest) {
			continue
		}
		err := fmt.Errorf("over the limit of %d referrers a subject: %w", maxReferrers, errdefs.ErrResourceExhausted)
		if i < maxReferrers {
			err = r.restore(ctx, subject, desc)
		}
		switch {
		case err == nil:
			complete = append(complete, desc.Digest)
		case ctx.Err() == nil && isLeftOut(err):
			if r.leftOut++; r.leftOut <= maxWarnings {
				log.G(ctx).WithError(err).WithField("subject", subject).WithField("digest", desc.Digest).Warn("referrers: not imported")
			}
		default:
			return nil, fmt.Errorf("referrer %s of %s: %w", desc.Digest, subject, err)
		}
	}
	return complete, nil
}

// KeepEntries labels an index that an import makes an image of to keep the referrers that it
// lists, whether they were restored or not, as containerd would: an image of which
// parts are collected can be neither exported nor pushed. Those that are not complete are
// passed over. The error is of the store.
func KeepEntries(ctx context.Context, store stored.Store, labeler *stored.Labeler, index digest.Digest, carried []ocispec.Descriptor) error {
	var kept []digest.Digest
	content := newKeeper(store, labeler)
	for _, desc := range carried[:min(len(carried), maxReferrers)] {
		m, err := stored.Manifest(ctx, store, desc)
		if err == nil {
			err = content.keep(ctx, desc, m, nil)
		}
		if err == nil {
			kept = append(kept, desc.Digest)
		} else if !isLeftOut(err) {
			return err
		}
	}
	return labeler.Add(ctx, index, labels.Children(kept...))
}

// isLeftOut reports whether an error is of the archive and not of the store.
func isLeftOut(err error) bool {
	return errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) || errdefs.IsResourceExhausted(err)
}

// restore checks a referrer and labels its content, so that it lives with it.
func (r *restorer) restore(ctx context.Context, subject digest.Digest, desc ocispec.Descriptor) error {
	m, err := stored.Manifest(ctx, r.store, desc)
	if err != nil {
		return err
	}
	add := map[string]string{}
	if m.Subject == nil {
		// The archive's word ties it, as cosign's tag or the image's index did.
		artifactType := m.ArtifactType
		switch set := artifact.SetOfType(desc.ArtifactType); {
		case m.Untyped() && (desc.ArtifactType != artifact.TypeBuildKitAttestation || !m.IsBuildKitAttestation()):
			// It may be any image, the subject itself as well.
			return fmt.Errorf("its manifest names no subject, and is no %.80q: %w", desc.ArtifactType, errdefs.ErrInvalidArgument)
		case m.Untyped():
			artifactType = desc.ArtifactType
		case set != "" && set != artifact.SetOf(m.Referrer()):
			return fmt.Errorf("its manifest names no subject, and is %.80q and no %.80q: %w", artifactType, desc.ArtifactType, errdefs.ErrInvalidArgument)
		}
		add[labels.ArtifactTypeKey] = artifactType
	} else if m.Subject.Digest != subject {
		return fmt.Errorf("its manifest's subject is %.80q: %w", m.Subject.Digest, errdefs.ErrInvalidArgument)
	}
	return r.content.keep(ctx, desc, m, add)
}

// keeper labels the content of referrers, so that it lives with them. It remembers what
// several of them name.
type keeper struct {
	reader   *stored.Reader
	labeler  *stored.Labeler
	labelled map[digest.Digest]bool // manifests that a referrer names
}

func newKeeper(store stored.Store, labeler *stored.Labeler) *keeper {
	return &keeper{stored.NewReader(store), labeler, map[digest.Digest]bool{}}
}

// keep labels each manifest of a referrer to keep what it names, which must be there as it
// is named: what an import ties, a push can bring to a registry. The referrer itself gets
// more labels.
func (k *keeper) keep(ctx context.Context, referrer ocispec.Descriptor, m *artifact.Manifest, more map[string]string) error {
	return artifact.Walk(ctx, referrer, m, artifact.Visitor{
		Manifest: func(ctx context.Context, desc ocispec.Descriptor, _ []byte) (*artifact.Manifest, error) {
			return k.reader.Child(ctx, desc)
		},
		Blob: func(ctx context.Context, _, desc ocispec.Descriptor, _ []byte) error {
			return k.reader.HasBlob(ctx, desc)
		},
		Leave: func(ctx context.Context, desc ocispec.Descriptor, m *artifact.Manifest) error {
			add := labels.Children(m.Children()...)
			if desc.Digest == referrer.Digest {
				maps.Copy(add, more)
			} else if k.labelled[desc.Digest] {
				return nil
			}
			if err := k.labeler.Add(ctx, desc.Digest, add); err != nil {
				return err
			}
			k.labelled[desc.Digest] = true
			return nil
		},
	})
}
