package gather

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// take brings one referrer in: its manifest, which decides what it is and what
// it refers to, then all that it names.
func (g *Gather) take(s *subject, c candidate) {
	if !s.first(c.Digest) {
		return
	}
	span := g.takeSpan(s, c)
	m, reason, err := g.bring(s, c)
	endTake(span, m, err)
	var drop dropped
	switch {
	case err == nil:
	case errors.As(err, &drop):
		s.note("", Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Reason: drop.reason})
		return
	case errdefs.IsResourceExhausted(err):
		s.note(discovery.Truncated, Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Reason: err.Error(), Limit: limitOf(err)})
		return
	default:
		if cause := context.Cause(g.ctx); cause != nil {
			err = cause
		}
		s.note(discovery.Unknown, Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Reason: err.Error()})
		return
	}
	desc := c.Descriptor
	desc.ArtifactType, desc.Annotations = m.ArtifactType, m.Annotations
	s.mu.Lock()
	s.taken = append(s.taken, Taken{Descriptor: desc, Reason: reason, cosign: c.cosign})
	if c.legacy != "" && s.status == discovery.Absent {
		s.status = discovery.Present // no listing shows it, but it is there
	}
	s.mu.Unlock()
	log.G(g.ctx).WithField("subject", s.desc.Digest).WithField("digest", c.Digest).
		WithField("artifactType", m.ArtifactType).Debug("referrers: taken")
}

// dropped is an error for what turned out to be none of the subject's wanted
// referrers: nothing is missing without it.
type dropped struct{ reason string }

func (d dropped) Error() string { return d.reason }

// bring returns the manifest, and why the referrer is taken. The manifest is judged
// before it is stored: one that is not wanted leaves no trace.
func (g *Gather) bring(s *subject, c candidate) (*artifact.Manifest, string, error) {
	var reason string
	m, err := g.manifest(c, func(m *artifact.Manifest) error {
		switch {
		case m.Subject != nil && m.Subject.Digest != s.desc.Digest:
			return dropped{fmt.Sprintf("refused: its manifest's subject is %.80q", m.Subject.Digest)}
		case m.Subject == nil && c.legacy == "":
			return dropped{"refused: its manifest names no subject"}
		case c.cosign && (g.isImage(c.Digest) || policy.SetOf(m.Referrer()) != policy.SetOf(policy.Referrer{ArtifactType: c.legacy})):
			// A tag can point anywhere, at the image itself as well.
			return dropped{fmt.Sprintf("refused: what lies under cosign's tag is no %s", c.legacy)}
		case c.legacy != "" && (m.ArtifactType == "" || images.IsConfigType(m.ArtifactType)):
			m.ArtifactType = c.legacy // the manifest says nothing itself
		}
		d := g.Selection.DecideManifest(m.Referrer())
		if reason = d.Reason; d.Verdict != policy.Take {
			return dropped{reason}
		}
		if c.ask && !s.hasRoom() {
			return over(LimitReferrers, fmt.Errorf("%s: %w", g.overLimit(c.Descriptor).Reason, errdefs.ErrResourceExhausted))
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	g.report(event{"complete", c.Descriptor, s.desc, c.Size})
	// Its own referrers need not wait for its blobs.
	if s.depth > 1 && !g.add(plain(c.Descriptor), s.depth-1, false) {
		s.note(discovery.Truncated, Left{Digest: c.Digest, ArtifactType: m.ArtifactType, Limit: LimitSubjects,
			Reason: fmt.Sprintf("its own referrers were not asked for: over the limit of %d subjects a pull", maxSubjects)})
	}
	return m, reason, g.children(c.Descriptor, m, 0)
}

// isImage says whether the digest is a manifest or index of the image itself.
func (g *Gather) isImage(dgst digest.Digest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.bySubj[dgst]
	return s != nil && s.image.Load()
}

// first says whether the referrer is met for the first time: the registry may list
// what lies in the image's index as well.
func (s *subject) first(referrer digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[referrer] {
		return false
	}
	if s.seen == nil {
		s.seen = map[digest.Digest]bool{}
	}
	s.seen[referrer] = true
	return true
}
