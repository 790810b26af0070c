package gather

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// subject is a manifest or index that is asked about.
type subject struct {
	desc  ocispec.Descriptor
	depth int // levels of referrers to take, this subject's own included
	image atomic.Bool

	// Guarded by Gather.mu.
	parents  []digest.Digest // indexes of the image that name it
	embedded int             // manifests of the image's index that refer to it

	mu      sync.Mutex
	seen    map[sighting]bool          // referrers that are being taken, or were
	latest  map[digest.Digest]*attempt // to take them
	room    int                        // for those that only their manifest decides on
	listed  bool                       // the registry has answered
	base    discovery.Status           // no better than this, whatever it answers
	status  discovery.Status
	answers []discovery.Answer
	taken   []Taken
	left    []Left
	doubts  int // of left, those that lower the status
	untold  int // what left has no room for
	budget  *budget
	known   known
}

// Way is how a pull came to know of a referrer.
type Way string

const (
	listed   Way = "listing"     // the registry's
	tagged   Way = "cosign_tag"  // a tag of cosign's
	embedded Way = "image_index" // the image's own index
)

// candidate is a referrer that may be taken.
type candidate struct {
	ocispec.Descriptor
	way      Way
	manifest []byte // where it is known already
	// legacy is the artifact type that it is taken for, where not its manifest
	// but one of cosign's tags, or the image's index, names the subject.
	legacy string
	ask    bool // the listing does not say what it is
	turn   *turn
	held   int64 // bytes of manifest that count as held
}

// discover asks what refers to the subject, and starts to take what is wanted, of
// each page of the listing while the next is on its way.
func (g *Gather) discover(s *subject) {
	var c chosen
	var judged sync.WaitGroup
	var candidates []candidate
	start := func(some []candidate) {
		candidates = append(candidates, some...)
		for _, c := range some {
			judged.Add(1)
			g.wg.Go(func() {
				defer judged.Done()
				g.take(s, c)
			})
		}
	}
	listing, err := g.list(s, func(page []ocispec.Descriptor) { start(g.choose(s, &c, page)) })
	if err != nil {
		s.note(discovery.Unknown, Left{Reason: err.Error()})
		return
	}
	s.mu.Lock()
	s.answers = listing.Answers
	if s.status = s.base.Worse(listing.Status); s.status == discovery.Absent && len(s.taken) > 0 {
		s.status = discovery.Present
	}
	s.listed = true
	if s.budget.spend(len(listing.Referrers) + len(listing.Rejected)) {
		s.known.listing(listing)
	}
	s.mu.Unlock()
	for _, r := range listing.Rejected {
		// What cannot be fetched may have been what was wanted.
		status := r.Status
		if g.decide(r.Descriptor).Verdict == policy.Skip {
			status = ""
		}
		left := Left{Digest: r.Digest, ArtifactType: r.ArtifactType, Way: listed, Reason: "refused: " + r.Reason}
		if status == discovery.Truncated {
			left.Limit = LimitManifest
		}
		s.note(status, left)
	}
	room := g.Limits.MaxReferrers - c.sure
	s.setRoom(room)
	asked := g.withinPull(s, c.asked, &g.asks)
	if len(asked) > room {
		inTurn(asked, room)
	}
	start(asked)
	g.cosign(s, candidates, &judged)
}

func (g *Gather) list(s *subject, found func([]ocispec.Descriptor)) (discovery.Listing, error) {
	if err := g.listings.Acquire(g.ctx, 1); err != nil {
		return discovery.Listing{}, context.Cause(g.ctx)
	}
	defer g.listings.Release(1)
	ctx, span := g.listSpan(s)
	listing, err := g.Registry.ListEach(ctx, s.desc.Digest, found)
	endListing(span, listing, err)
	if cause := context.Cause(g.ctx); err == nil && cause != nil && listing.Status == discovery.Unknown {
		err = cause
	}
	return listing, err
}

// decide judges a referrer by what the listing says of it.
func (g *Gather) decide(desc ocispec.Descriptor) policy.Decision {
	return g.Selection.Decide(policy.Referrer{ArtifactType: desc.ArtifactType, Annotations: desc.Annotations})
}

// chosen is what the policy made of a listing so far.
type chosen struct {
	sure  int         // candidates that the listing's type decides on
	asked []candidate // those that only their manifest can decide on
}

func (c *chosen) isAsked(dgst digest.Digest) bool {
	return slices.ContainsFunc(c.asked, func(a candidate) bool { return a.Digest == dgst })
}

// choose applies the policy before the cap, so that decoys of other types cannot
// push a signature past it. It returns what the listing's type decides, in the
// registry's order; what only its manifest can decide has what room the whole
// listing leaves, and counts once the manifest has spoken.
func (g *Gather) choose(s *subject, c *chosen, page []ocispec.Descriptor) []candidate {
	var sure []candidate
	for _, desc := range page {
		switch d := g.decide(desc); {
		case d.Verdict == policy.Skip:
			s.note("", Left{Digest: desc.Digest, ArtifactType: desc.ArtifactType, Way: listed, Reason: d.Reason})
		case d.Verdict == policy.Ask:
			if c.isAsked(desc.Digest) {
				continue // it is told again since it was contradicted; its place is the first
			}
			c.asked = append(c.asked, candidate{Descriptor: desc, way: listed, ask: true})
		case c.sure == g.Limits.MaxReferrers:
			s.note(discovery.Truncated, g.overLimit(desc, listed))
		default:
			c.sure++
			sure = append(sure, candidate{Descriptor: desc, way: listed})
		}
	}
	return g.withinPull(s, sure, &g.takes)
}

// withinPull cuts candidates to what one pull may take, or ask, in all.
func (g *Gather) withinPull(s *subject, candidates []candidate, count *int) []candidate {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.withinPullLocked(s, candidates, count)
}

// withinPullLocked is withinPull for those who hold Gather.mu.
func (g *Gather) withinPullLocked(s *subject, candidates []candidate, count *int) []candidate {
	n := min(len(candidates), maxSubjects-*count)
	*count += n
	for _, c := range candidates[n:] {
		s.note(discovery.Truncated, Left{Digest: c.Digest, ArtifactType: c.ArtifactType, Way: c.way, Limit: LimitPull,
			Reason: fmt.Sprintf("over the limit of %d referrers a pull", maxSubjects)})
	}
	return candidates[:n]
}

func (s *subject) setRoom(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = n
}

// hasRoom reports whether a referrer that its manifest decided on is within the cap.
func (s *subject) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room--
	return s.room >= 0
}

func (g *Gather) overLimit(desc ocispec.Descriptor, way Way) Left {
	return Left{Digest: desc.Digest, ArtifactType: desc.ArtifactType, Way: way, Limit: LimitReferrers,
		Reason: fmt.Sprintf("over the limit of %d referrers a subject (key max_referrers)", g.Limits.MaxReferrers)}
}

// add records the answers about one of cosign's tags. A host that failed casts no doubt
// if another had the tag; what lies there makes a subject present once it is taken.
func (s *subject) add(answers []discovery.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, answers...)
	if len(answers) == 0 || answers[len(answers)-1].Status == discovery.Present {
		return
	}
	for _, a := range answers {
		s.status = s.status.Worse(a.Status)
	}
}

// why says in one line what is known of the subject's referrers, and why no more:
// what casts doubt on it first, then what else was refused or not wanted.
func (s *subject) why() string {
	parts := []string{string(s.status)}
	for _, a := range s.answers {
		if a.Status != discovery.Present {
			parts = append(parts, a.String())
		}
	}
	for _, doubt := range []bool{true, false} {
		for _, l := range s.left {
			if doubt == (l.Status != "") {
				parts = append(parts, l.String())
			}
		}
	}
	const most = 6
	if more := len(parts) + s.untold - most; more > 0 {
		parts = append(parts[:min(len(parts), most)], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; ")
}
