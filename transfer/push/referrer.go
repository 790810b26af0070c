package push

import (
	"context"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// headerSubject is what a registry answers that took note of a manifest's subject.
const headerSubject = "OCI-Subject"

// referrer is one that is pushed: in the registry, once [pusher.referrer] has returned it.
type referrer struct {
	stored.Referrer
	entry ocispec.Descriptor // for a fallback tag
	// namesSubject says that its manifest namesSubject the subject.
	namesSubject bool
	// listed says that the registry lists it: it answered OCI-Subject, or its listing
	// has it already.
	listed bool
	// existed says that it was there before.
	existed bool
}

// referrer pushes one referrer, its content first. It returns nil for what turns out
// to be none of the subject's.
func (p *pusher) referrer(ctx context.Context, subject ocispec.Descriptor, s stored.Referrer) (*referrer, error) {
	if p.byImagePush[s.Digest] { // an attestation manifest of the image's own index
		return nil, nil
	}
	desc := artifact.Plain(s.Descriptor())
	data, m, err := p.read(ctx, desc)
	if err != nil {
		return nil, failed(subject.Digest, s, err)
	}
	r := &referrer{Referrer: s, entry: entryOf(s, m), namesSubject: m.Subject != nil}
	skip := func(why string) (*referrer, error) {
		log.G(ctx).WithField("subject", subject.Digest).WithField("digest", s.Digest).Warn("referrers: not pushed: " + why)
		return nil, nil
	}
	tag := ""
	switch {
	case m.Subject != nil && m.Subject.Digest != subject.Digest:
		return skip("its manifest names another subject")
	case p.ofImage[s.Digest]:
		r.namesSubject = false // the image's index names it, whatever it says itself
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
	case r.existed:
		p.report("already exists", desc, subject, desc.Size)
	default:
		p.report("complete", desc, subject, desc.Size)
	}
	return r, nil
}

// putReferrer puts the manifest under its digest, unless it is there. A registry that
// has a manifest has what it names.
func (p *pusher) putReferrer(ctx context.Context, subject digest.Digest, r *referrer, data []byte, m *artifact.Manifest) (err error) {
	if r.existed, err = p.config.Repository.Has(ctx, p.host, m.MediaType, r.Digest); err != nil || r.existed {
		return err
	}
	if err := p.content(ctx, r.Descriptor(), m); err != nil {
		return err
	}
	return p.put(ctx, subject, r, data)
}

// put puts the manifest. Those of one subject take turns: a registry that answers two
// at once may list but one of them, as olareg does.
func (p *pusher) put(ctx context.Context, subject digest.Digest, r *referrer, data []byte) error {
	unlock, err := p.config.Locks.lock(ctx, p.config.Repository.URL(p.host, "referrers", subject.String()).String())
	if err != nil {
		return err
	}
	defer unlock()
	header, err := p.config.Repository.PutManifest(ctx, p.host, r.Digest.String(), r.MediaType, data)
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
	data, err := stored.ReadManifest(ctx, p.config.Store, desc)
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

// content brings what a referrer names to the registry, before its manifest. A manifest
// that is there has what it names.
func (p *pusher) content(ctx context.Context, referrer ocispec.Descriptor, m *artifact.Manifest) error {
	return artifact.Walk(ctx, referrer, m, artifact.Visitor{
		Manifest: func(ctx context.Context, desc ocispec.Descriptor, _ []byte) (*artifact.Manifest, error) {
			found, err := p.config.Repository.Has(ctx, p.host, desc.MediaType, desc.Digest)
			if err != nil || found {
				return nil, err
			}
			_, below, err := p.read(ctx, desc)
			return below, err
		},
		Blob: func(ctx context.Context, parent, desc ocispec.Descriptor, _ []byte) error {
			return p.blob(ctx, parent, desc)
		},
		Leave: func(ctx context.Context, desc ocispec.Descriptor, _ *artifact.Manifest) error {
			if desc.Digest == referrer.Digest {
				return nil // put by the caller, under its tag or digest
			}
			data, _, err := p.read(ctx, desc)
			if err != nil {
				return err
			}
			_, err = p.config.Repository.PutManifest(ctx, p.host, desc.Digest.String(), desc.MediaType, data)
			return err
		},
	})
}
