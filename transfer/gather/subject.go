package gather

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// minDoubts is how many of each subject's reasons to doubt may use the room for doubts.
const minDoubts = 8

// digestBytes is about how many bytes a digest takes that is kept to compare.
const digestBytes = 128

// subject is a manifest or index that is asked about.
type subject struct {
	desc  ocispec.Descriptor
	depth int // levels of referrers to take, this subject's own included
	image atomic.Bool
	// vouched says that the subject is a referrer whose statements are not signed: who signs
	// it vouches for them, maybe under cosign's tag.
	vouched bool
	// tagsAsked says that cosign's tags are asked for, which waits until discovered is
	// closed for what was a referrer before it was known as a part of the image.
	tagsAsked  atomic.Bool
	discovered chan struct{}
	quota      *quota

	kept    bool                   // tied beneath what is under this pull's lease, see kept.go
	protect sync.Once              // reads tied
	tied    map[digest.Digest]bool // to it, under this pull's lease

	parents []digest.Digest // indexes of the image that name it; guarded by Gather.mu

	mu        sync.Mutex
	seen      map[sighting]bool          // referrers that are being taken, or were
	latest    map[digest.Digest]*attempt // to take each of them
	answered  bool                       // the registry has, for its listing
	base      labels.Status              // no better than this, whatever it answers
	status    labels.Status
	answers   []outcome.Answer
	taken     []outcome.Referrer
	skipped   []outcome.Referrer
	doubts    int // of skipped, those that lower the status
	forgotten int // what skipped has no room for
	asked     inquiry
}

// skip records why a candidate is not taken, and that the status can be no better than
// given ("" where it does not matter). Over the quota only the status is kept.
func (s *subject) skip(c candidate, status labels.Status, why error) {
	r := outcome.Referrer{Digest: c.Digest, ArtifactType: c.ArtifactType, Via: c.via, Status: status, Reason: outcome.Shorten(why.Error())}
	if status == labels.Truncated {
		r.Limit = limitOf(why)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(r)
}

// doubt records that something failed which is not about one referrer.
func (s *subject) doubt(why error) { s.skip(candidate{}, labels.Unknown, why) }

// note is for those who hold s.mu.
func (s *subject) note(r outcome.Referrer) {
	if !s.answered {
		s.base = s.base.Worse(r.Status)
	}
	s.status = s.status.Worse(r.Status)
	if r.Status != "" {
		s.doubts++
	}
	data, err := json.Marshal(r)
	if err != nil || s.quota.remember(len(data), r.Status != "" && s.doubts <= minDoubts) != nil {
		s.forgotten++
		return
	}
	s.skipped = append(s.skipped, r)
}

// state returns what is known of the subject's referrers now, and why no more.
func (s *subject) state() (labels.Status, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.why()
}

// setListing records what the registry answered.
func (s *subject) setListing(listing registry.Listing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = listing.Answers
	if s.status = s.base.Worse(listing.Status); s.status == labels.Absent && len(s.taken) > 0 {
		s.status = labels.Present
	}
	s.answered = true
	if s.quota.remember(digestBytes*(len(listing.Referrers)+len(listing.Rejected)), false) == nil {
		s.asked.listing(listing)
	}
}

// addTag records the answers about one of cosign's tags. A host that failed casts no doubt
// if another had the tag; what lies there makes a subject present once it is taken.
func (s *subject) addTag(kind registry.CosignKind, found *registry.CosignArtifact, answers []outcome.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked.tag(kind.ArtifactType, found, answers)
	s.answers = append(s.answers, answers...)
	if len(answers) == 0 || answers[len(answers)-1].Status == labels.Present {
		return
	}
	for _, a := range answers {
		s.status = s.status.Worse(a.Status)
	}
}

// addTaken records a referrer that is whole in the store.
func (s *subject) addTaken(r outcome.Referrer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = append(s.taken, r)
	if r.Via != outcome.Listed && s.status == labels.Absent {
		s.status = labels.Present // no listing shows it, but it is there
	}
}

// why says in one line what is known of the subject's referrers, and why no more:
// what casts doubt on it first, then what else was refused or not wanted.
func (s *subject) why() string {
	parts := []string{string(s.status)}
	for _, a := range s.answers {
		if a.Status != labels.Present {
			parts = append(parts, a.String())
		}
	}
	for _, doubt := range []bool{true, false} {
		for _, r := range s.skipped {
			if doubt == (r.Status != "") {
				parts = append(parts, r.String())
			}
		}
	}
	const most = 6
	if more := len(parts) + s.forgotten - most; more > 0 {
		parts = append(parts[:min(len(parts), most)], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; ")
}
