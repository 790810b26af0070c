package archive

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
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
// What is not whole, or names another subject than its annotation says, is left
// out and logged. The error is of the store.
func Restore(ctx context.Context, store content.Store, subjects []digest.Digest, carried []ocispec.Descriptor) (int, error) {
	bySubject := map[string][]ocispec.Descriptor{}
	for _, desc := range carried {
		subject := desc.Annotations[images.AnnotationManifestSubject]
		bySubject[subject] = append(bySubject[subject], desc)
	}
	restored, left := 0, 0
	for len(subjects) > 0 {
		subject := subjects[0]
		subjects = subjects[1:]
		referrers := bySubject[subject.String()]
		delete(bySubject, subject.String()) // once; and none is met twice in a circle
		var whole []digest.Digest
		for i, desc := range referrers {
			if slices.Contains(whole, desc.Digest) {
				continue
			}
			err := fmt.Errorf("over the limit of %d referrers a subject: %w", maxReferrers, errdefs.ErrResourceExhausted)
			if i < maxReferrers {
				err = keep(ctx, store, subject, desc)
			}
			switch {
			case err == nil:
				whole = append(whole, desc.Digest)
			case isLeftOut(err):
				if left++; left <= maxWarnings {
					log.G(ctx).WithError(err).WithField("subject", subject).WithField("digest", desc.Digest).Warn("referrers: not imported")
				}
			default:
				return restored, fmt.Errorf("referrer %s of %s: %w", desc.Digest, subject, err)
			}
		}
		if len(whole) == 0 {
			continue
		}
		if err := stored.Tie(ctx, store, subject, whole, nil); err != nil {
			return restored, err
		}
		restored += len(whole)
		subjects = append(subjects, whole...)
	}
	if left > maxWarnings {
		log.G(ctx).Warnf("referrers: %d more not imported", left-maxWarnings)
	}
	for subject, others := range bySubject {
		log.G(ctx).WithField("subject", subject).WithField("referrers", len(others)).Debug("referrers: not imported: their subject is not")
	}
	return restored, nil
}

// Keep labels an index that an import makes an image of to keep the referrers that it
// lists, whether they were restored or not, as containerd would: an image of which
// parts are collected can be neither exported nor pushed. Those that are not whole are
// passed over. The error is of the store.
func Keep(ctx context.Context, store content.Store, index digest.Digest, carried []ocispec.Descriptor) error {
	var kept []digest.Digest
	for _, desc := range carried[:min(len(carried), maxReferrers)] {
		m, err := stored.Manifest(ctx, store, desc)
		if err == nil {
			err = keepContent(ctx, store, desc, m, map[string]string{}, 0)
		}
		if err == nil {
			kept = append(kept, desc.Digest)
		} else if !isLeftOut(err) {
			return err
		}
	}
	info, err := store.Info(ctx, index)
	if err != nil {
		return err
	}
	return stored.Label(ctx, store, info, labels.Children(kept...))
}

// isLeftOut reports whether an error is of the archive and not of the store.
func isLeftOut(err error) bool {
	return errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) || errdefs.IsResourceExhausted(err)
}

// keep checks a referrer and labels its content, so that it lives with it.
func keep(ctx context.Context, store content.Store, subject digest.Digest, desc ocispec.Descriptor) error {
	m, err := stored.Manifest(ctx, store, desc)
	if err != nil {
		return err
	}
	add := map[string]string{}
	if m.Subject == nil {
		// The archive's word ties it, as cosign's tag or the image's index did.
		artifactType := m.ArtifactType
		if artifactType == "" || images.IsConfigType(artifactType) {
			if artifactType = desc.ArtifactType; artifactType != policy.TypeBuildKitAttestation || !holdsStatements(m) {
				// It may be any image, the subject itself as well.
				return fmt.Errorf("its manifest names no subject, and is no %.80q: %w", artifactType, errdefs.ErrInvalidArgument)
			}
		}
		add[labels.ArtifactType] = artifactType
	} else if m.Subject.Digest != subject {
		return fmt.Errorf("its manifest's subject is %.80q: %w", m.Subject.Digest, errdefs.ErrInvalidArgument)
	}
	return keepContent(ctx, store, desc, m, add, 0)
}

// holdsStatements reports whether a manifest's layers are in-toto statements: of what
// looks like an image and does not tell its type, BuildKit's attestations alone have
// such (BuildKit, "Image Attestation Storage").
func holdsStatements(m *artifact.Manifest) bool {
	for _, b := range m.Blobs[min(1, len(m.Blobs)):] {
		if b.MediaType != "application/vnd.in-toto+json" {
			return false
		}
	}
	return len(m.Blobs) > 1
}

// keepContent labels a manifest to keep what it names, which must be there.
func keepContent(ctx context.Context, store content.Store, desc ocispec.Descriptor, m *artifact.Manifest, add map[string]string, nesting int) error {
	for key, value := range labels.Children(m.Children()...) {
		add[key] = value
	}
	for _, b := range m.Blobs {
		if _, err := store.Info(ctx, b.Digest); err != nil {
			return err
		}
	}
	for _, d := range m.Manifests {
		child, err := stored.Manifest(ctx, store, d)
		if err != nil {
			return err
		}
		if nesting == artifact.MaxNesting {
			return fmt.Errorf("%s: indexes lie more than %d deep: %w", d.Digest, artifact.MaxNesting, errdefs.ErrResourceExhausted)
		}
		if err := keepContent(ctx, store, d, child, map[string]string{}, nesting+1); err != nil {
			return err
		}
	}
	info, err := store.Info(ctx, desc.Digest)
	if err != nil {
		return err
	}
	return stored.Label(ctx, store, info, add)
}
