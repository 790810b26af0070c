package push

import (
	"context"
	"fmt"
	"net/http"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// headerSubject is what a registry answers that took note of a manifest's subject.
const headerSubject = "OCI-Subject"

// maxNesting is how deep the indexes within a referrer may lie, as for a pull.
const maxNesting = 2

// referrer is one that is in the registry.
type referrer struct {
	stored.Referrer
	entry ocispec.Descriptor // for a fallback tag
	// names says that its manifest names the subject.
	names bool
	// listed says that the registry took note of the subject.
	listed bool
	// found says that it was there before.
	found bool
}

// referrer pushes one referrer, its content first. It returns nil for what turns out
// to be none of the subject's.
func (p *pusher) referrer(ctx context.Context, subject ocispec.Descriptor, s stored.Referrer) (*referrer, error) {
	if p.pushed[s.Digest] { // an attestation manifest of the image's own index
		return nil, nil
	}
	desc := plain(s.Descriptor())
	data, m, err := p.read(ctx, desc)
	if err != nil {
		return nil, failed(subject.Digest, s, err)
	}
	r := &referrer{Referrer: s, names: m.Subject != nil}
	if r.entry, err = entryOf(s, data); err != nil {
		return nil, failed(subject.Digest, s, err)
	}
	skip := func(why string) (*referrer, error) {
		log.G(ctx).WithField("subject", subject.Digest).WithField("digest", s.Digest).Warn("referrers: not pushed: " + why)
		return nil, nil
	}
	tag := ""
	switch {
	case m.Subject != nil && m.Subject.Digest != subject.Digest:
		return skip("its manifest names another subject")
	case p.inIndex[s.Digest]:
		r.names = false // the image's index names it, whatever it says itself
	case m.Subject == nil && s.ArtifactType == artifact.TypeBuildKitAttestation:
		return skip("it lies in the index of another image")
	case m.Subject == nil:
		if tag, err = cosignTag(subject.Digest, s); err != nil {
			return nil, failed(subject.Digest, s, err)
		}
	}
	p.report("waiting", desc, subject, 0)
	if tag != "" {
		err = p.putTagged(ctx, r, data, m, tag)
	} else {
		err = p.putReferrer(ctx, subject.Digest, r, data, m)
	}
	switch {
	case err != nil:
		p.report("failed", desc, subject, 0)
		return nil, failed(subject.Digest, s, err)
	case r.found:
		p.report("already exists", desc, subject, desc.Size)
	default:
		p.report("complete", desc, subject, desc.Size)
	}
	return r, nil
}

// putReferrer puts the manifest under its digest, unless it is there. A registry that
// has a manifest has what it names.
func (p *pusher) putReferrer(ctx context.Context, subject digest.Digest, r *referrer, data []byte, m *artifact.Manifest) (err error) {
	if r.found, err = p.Repository.Has(ctx, p.host, m.MediaType, r.Digest); err != nil || r.found {
		return err
	}
	if err := p.children(ctx, plain(r.Descriptor()), m, 0); err != nil {
		return err
	}
	return p.put(ctx, subject, r, data)
}

// put puts the manifest. Those of one subject take turns: a registry that answers two
// at once may list but one of them, as olareg does.
func (p *pusher) put(ctx context.Context, subject digest.Digest, r *referrer, data []byte) error {
	unlock, err := turns.lock(ctx, p.Repository.URL(p.host, "referrers", subject.String()).String())
	if err != nil {
		return err
	}
	defer unlock()
	header, err := p.Repository.PutManifest(ctx, p.host, r.Digest.String(), r.MediaType, data)
	if err != nil {
		return err
	}
	r.listed = tookNote(header, subject)
	return nil
}

func tookNote(header http.Header, subject digest.Digest) bool {
	return header.Get(headerSubject) == subject.String()
}

// read returns a stored manifest. What is gone from the store is named with its
// remedy.
func (p *pusher) read(ctx context.Context, desc ocispec.Descriptor) ([]byte, *artifact.Manifest, error) {
	data, err := stored.ReadManifest(ctx, p.Store, desc)
	if errdefs.IsNotFound(err) {
		return nil, nil, notStored(desc.Digest, err)
	}
	if err != nil {
		return nil, nil, err
	}
	m, err := artifact.Parse(data, desc.MediaType)
	return data, m, err
}

func notStored(dgst digest.Digest, err error) error {
	return fmt.Errorf("%s is not stored; pull the image again to have it whole: %w", dgst, err)
}

// children brings what a manifest names to the registry, before it.
func (p *pusher) children(ctx context.Context, parent ocispec.Descriptor, m *artifact.Manifest, nesting int) error {
	if len(m.Manifests) > 0 && nesting == maxNesting {
		return fmt.Errorf("%s: indexes lie more than %d deep: %w", parent.Digest, maxNesting, errdefs.ErrResourceExhausted)
	}
	for _, desc := range append(m.Blobs, m.Manifests...) {
		desc = plain(desc)
		if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
			if err := p.blob(ctx, parent, desc); err != nil {
				return err
			}
			continue
		}
		if err := p.child(ctx, desc, nesting+1); err != nil {
			return err
		}
	}
	return nil
}

// child puts a manifest that a referrer names.
func (p *pusher) child(ctx context.Context, desc ocispec.Descriptor, nesting int) error {
	found, err := p.Repository.Has(ctx, p.host, desc.MediaType, desc.Digest)
	if err != nil || found {
		return err
	}
	data, m, err := p.read(ctx, desc)
	if err != nil {
		return err
	}
	if nesting > maxNesting {
		return fmt.Errorf("%s: manifests lie more than %d deep: %w", desc.Digest, maxNesting, errdefs.ErrResourceExhausted)
	}
	if err := p.children(ctx, desc, m, nesting); err != nil {
		return err
	}
	_, err = p.Repository.PutManifest(ctx, p.host, desc.Digest.String(), desc.MediaType, data)
	return err
}
