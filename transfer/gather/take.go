package gather

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
)

// take brings one referrer in: its manifest, which decides what it is and what
// it refers to, then all that it names.
func (g *Gather) take(s *subject, c candidate) {
	defer c.turn.pass(g.ctx) // whatever becomes of it, and last: it may have to wait
	try, earlier := s.attempt(c)
	if try == nil {
		return
	}
	defer close(try.done)
	if earlier != nil && earlier.succeeded(g.ctx) {
		try.taken = true
		return
	}
	// Registries are known to list the size of all that an artifact holds. The digest
	// vouches for a manifest of another size.
	if info, err := g.Store.Info(g.ctx, c.Digest); err == nil && c.way == listed && info.Size <= remote.MaxManifestSize {
		c.Size = info.Size
	}
	span := g.takeSpan(s, c)
	m, reason, err := g.bringInTurn(s, &c)
	var sized otherSize
	if c.way == listed && errors.As(err, &sized) {
		c.manifest, c.Size = sized.data, int64(len(sized.data))
		m, reason, err = g.bring(s, c)
	}
	endTake(span, m, err)
	var drop dropped
	switch {
	case err == nil:
	case errors.As(err, &drop):
		s.note("", Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Way: c.way, Reason: drop.reason})
		return
	case errdefs.IsResourceExhausted(err):
		s.note(discovery.Truncated, Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Way: c.way, Reason: err.Error(), Limit: limitOf(err)})
		return
	default:
		if cause := context.Cause(g.ctx); cause != nil {
			err = cause
		}
		s.note(discovery.Unknown, Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Way: c.way, Reason: err.Error()})
		return
	}
	desc := c.Descriptor
	desc.ArtifactType, desc.Annotations = m.ArtifactType, m.Annotations
	s.mu.Lock()
	s.taken = append(s.taken, Taken{Descriptor: desc, Reason: reason, Hollow: m.Hollow, Way: c.way})
	try.taken = true
	if c.legacy != "" && s.status == discovery.Absent {
		s.status = discovery.Present // no listing shows it, but it is there
	}
	s.mu.Unlock()
	log.G(g.ctx).WithField("subject", s.desc.Digest).WithField("digest", c.Digest).
		WithField("artifactType", m.ArtifactType).Debug("referrers: taken")
}

// bringInTurn brings a candidate in when its turn has come.
func (g *Gather) bringInTurn(s *subject, c *candidate) (*artifact.Manifest, string, error) {
	defer func() { g.held.Add(-c.held) }()
	if err := g.await(s, c); err != nil {
		return nil, "", err
	}
	return g.bring(s, *c)
}

// dropped is an error for what turned out to be none of the subject's wanted
// referrers: nothing is missing without it.
type dropped struct{ reason string }

func (d dropped) Error() string { return d.reason }

// bring returns the manifest, and why the referrer is taken. The manifest is judged
// before it is stored: one that is not wanted leaves no trace.
func (g *Gather) bring(s *subject, c candidate) (*artifact.Manifest, string, error) {
	var reason string
	m, err := g.manifest(c, func(m *artifact.Manifest) (err error) {
		if reason, err = g.judge(s, c, m); err != nil {
			return err
		}
		if c.ask && !s.hasRoom() {
			return g.noRoom(c)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	g.report(event{"complete", c.Descriptor, s.desc, c.Size})
	// Its own referrers need not wait for its blobs.
	if s.depth > 1 && !g.add(plain(c.Descriptor), s.depth-1, false) {
		s.note(discovery.Truncated, Left{Digest: c.Digest, ArtifactType: m.ArtifactType, Way: c.way, Limit: LimitSubjects,
			Reason: fmt.Sprintf("its own referrers were not asked for: over the limit of %d subjects a pull", maxSubjects)})
	}
	return m, reason, g.children(c.Descriptor, m, 0)
}

// noRoom is the error of a referrer over the cap.
func (g *Gather) noRoom(c candidate) error {
	return over(LimitReferrers, fmt.Errorf("%s: %w", g.overLimit(c.Descriptor, c.way).Reason, errdefs.ErrResourceExhausted))
}

// judge decides by a manifest whether it is wanted, and says why. A manifest that says
// nothing of its type itself gets that by which it was met.
func (g *Gather) judge(s *subject, c candidate, m *artifact.Manifest) (reason string, err error) {
	switch {
	case m.Subject != nil && m.Subject.Digest != s.desc.Digest:
		return "", dropped{fmt.Sprintf("refused: its manifest's subject is %.80q", m.Subject.Digest)}
	case m.Subject == nil && c.way == listed:
		return "", dropped{"refused: its manifest names no subject"}
	case c.way != listed && g.isImage(c.Digest):
		// A tag can point anywhere, and an index call anything an attestation.
		return "", dropped{"refused: it is a part of the image itself"}
	case c.way == tagged && policy.SetOf(m.Referrer()) != policy.SetOf(policy.Referrer{ArtifactType: c.legacy}):
		return "", dropped{fmt.Sprintf("refused: what lies under cosign's tag is no %s", c.legacy)}
	case c.way == embedded && !attests(m):
		return "", dropped{"refused: the image's index calls it an attestation, which it is not"}
	case c.legacy != "" && (m.ArtifactType == "" || images.IsConfigType(m.ArtifactType)):
		m.ArtifactType = c.legacy // the manifest says nothing itself
	}
	d := g.Selection.DecideManifest(m.Referrer())
	if d.Verdict != policy.Take {
		return "", dropped{d.Reason}
	}
	return d.Reason, nil
}

// isImage reports whether the digest is a manifest or index of the image itself.
func (g *Gather) isImage(dgst digest.Digest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.bySubj[dgst]
	return s != nil && s.image.Load()
}

// attests reports whether what the image's index calls an attestation is one: BuildKit's
// manifests hold in-toto statements and call themselves what they are, or nothing. Any
// other type has to name its subject itself.
func attests(m *artifact.Manifest) bool {
	if m.ArtifactType != "" && !images.IsConfigType(m.ArtifactType) && m.ArtifactType != policy.TypeBuildKitAttestation {
		return m.Subject != nil
	}
	return slices.ContainsFunc(m.Blobs, func(b ocispec.Descriptor) bool {
		return strings.HasPrefix(b.MediaType, "application/vnd.in-toto")
	})
}

// sighting is a referrer as it was met in one of the ways.
type sighting struct {
	digest digest.Digest
	way    Way
}

// attempt is the taking of a referrer.
type attempt struct {
	done  chan struct{}
	taken bool // to be read when done
}

// succeeded waits for the attempt.
func (a *attempt) succeeded(ctx context.Context) bool {
	select {
	case <-a.done:
		return a.taken
	case <-ctx.Done():
		return false
	}
}

// attempt begins to take a candidate, nil where it was met in this way before. One that
// was met in another way is tried again where that failed: a listing that has no such
// manifest, or says something wrong of it, must not hide what the image's index holds.
func (s *subject) attempt(c candidate) (try, earlier *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sighting{c.Digest, c.way}
	if s.seen[key] {
		return nil, nil
	}
	if s.seen == nil {
		s.seen, s.latest = map[sighting]bool{}, map[digest.Digest]*attempt{}
	}
	s.seen[key] = true
	try, earlier = &attempt{done: make(chan struct{})}, s.latest[c.Digest]
	s.latest[c.Digest] = try
	return try, earlier
}
