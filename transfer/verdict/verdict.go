// Package verdict says whether an image may run: requirements of a rule and evidence in, a
// [Verdict] with its reasons out.
//
// [Weigh] finds what one piece of evidence is worth to each requirement, and [Case.Judge]
// counts. Evidence on a manifest and on the indexes above it is counted together, by
// identity and not by signature.
//
// The package is pure: no I/O and no clock.
package verdict

import (
	"cmp"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Result is what a verdict says.
type Result string

// The results.
const (
	// Verified says that every requirement holds of every manifest.
	Verified Result = "verified"
	// Refused says that one does not.
	Refused Result = "refused"
	// Unverified says that no rule verifies the image.
	Unverified Result = "unverified"
)

// Results are all of them.
var Results = []Result{Verified, Refused, Unverified}

// Case is an image, and what is known of it.
type Case struct {
	Image string // its reference
	// Selection is what governs the image.
	Selection *policy.Selection
	// Manifests are those of the image's platforms, which must all hold.
	Manifests []Manifest
	Pieces    []Piece
	// Status says how well the referrers of a subject are known, and why no better.
	Status func(digest.Digest) (status labels.Status, why string)
	// Stored says that the image is judged by what is stored, and not as it is pulled.
	Stored bool
	// Cut says why there may be more evidence than Pieces, "" where that is not so.
	Cut string

	bySubject map[digest.Digest][]Piece
}

// groupBySubject finds the pieces of each subject, so that counting stays linear.
func (c *Case) groupBySubject() {
	c.bySubject = map[digest.Digest][]Piece{}
	for _, p := range c.Pieces {
		c.bySubject[p.Subject] = append(c.bySubject[p.Subject], p)
	}
}

// Manifest is a manifest of the image that can be run.
type Manifest struct {
	Digest   digest.Digest
	Platform string          // "" where no index says it
	Above    []digest.Digest // the image's indexes that lead to it
}

// Piece is a piece of evidence that has been examined.
type Piece struct {
	Subject      digest.Digest
	Referrer     digest.Digest
	ArtifactType string
	Format       evidence.Format
	Weight
}

// Verdict is what was found, with the reason of every piece of evidence.
type Verdict struct {
	Result Result        `json:"result"`
	Mode   policy.Verify `json:"mode,omitempty"`
	// Rule names the rule that governs.
	Rule string `json:"rule"`
	// Reason says in one line why the image is refused.
	Reason    string            `json:"reason,omitempty"`
	Manifests []ManifestVerdict `json:"manifests"`
	Evidence  []Examined        `json:"evidence"`
}

// ManifestVerdict is what holds of a manifest.
type ManifestVerdict struct {
	Digest   digest.Digest `json:"digest"`
	Platform string        `json:"platform,omitempty"`
	Verified bool          `json:"verified"`
	Needs    []Need        `json:"needs"`
}

// Need is one requirement, and who meets it.
type Need struct {
	Requirement string `json:"requirement"`
	Holds       bool   `json:"holds"`
	AtLeast     int    `json:"atLeast"`
	// Identities are the different ones that count, sorted.
	Identities []string `json:"identities"`
}

// Examined is a piece of evidence and what it is worth.
type Examined struct {
	Subject      digest.Digest   `json:"subject"`
	Referrer     digest.Digest   `json:"referrer"`
	ArtifactType string          `json:"artifactType,omitempty"`
	Format       evidence.Format `json:"format"`
	Counted      bool            `json:"counted"`
	// Identities are who signed, where it counts.
	Identities []string `json:"identities"`
	// Reasons say what it counts for, or why it does not count.
	Reasons []string `json:"reasons"`
}

// Judge judges the image. An image without a manifest is refused.
func (c *Case) Judge() *Verdict {
	c.groupBySubject()
	v := &Verdict{Result: Unverified, Rule: c.Selection.RuleName(), Manifests: []ManifestVerdict{}, Evidence: []Examined{}}
	if c.Selection.Denied() {
		v.Result, v.Mode, v.Reason = Refused, policy.VerifyEnforce, denied(c.Image, c.Selection)
		return v
	}
	if v.Mode = c.Selection.Verify(); v.Mode == "" {
		return v
	}
	v.Result = Verified
	for _, m := range c.Manifests {
		mv := c.judge(m)
		if v.Manifests = append(v.Manifests, mv); !mv.Verified {
			v.Result = Refused
		}
	}
	if len(c.Manifests) == 0 {
		v.Result = Refused
	}
	for _, p := range c.Pieces {
		v.Evidence = append(v.Evidence, c.examined(p))
	}
	slices.SortStableFunc(v.Evidence, func(a, b Examined) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Referrer, b.Referrer))
	})
	if v.Result == Refused {
		v.Reason = c.reason(v)
	}
	return v
}

// Holds reports whether Judge would say that the image is verified.
func (c *Case) Holds() bool {
	c.groupBySubject()
	for _, m := range c.Manifests {
		if !c.judge(m).Verified {
			return false
		}
	}
	return len(c.Manifests) > 0
}

// Meets reports whether all requirements of a kind hold of a subject by the evidence on it
// and on the indexes above.
func (c *Case) Meets(kind evidence.Kind, m Manifest) bool {
	c.groupBySubject()
	for i, r := range c.Selection.Requirements() {
		if r.Kind == kind && len(c.identities(i, m)) < r.AtLeast {
			return false
		}
	}
	return true
}

func (c *Case) judge(m Manifest) ManifestVerdict {
	out := ManifestVerdict{Digest: m.Digest, Platform: m.Platform, Verified: true, Needs: []Need{}}
	for i, r := range c.Selection.Requirements() {
		n := Need{Requirement: r.String(), AtLeast: r.AtLeast, Identities: c.identities(i, m)}
		n.Holds = len(n.Identities) >= r.AtLeast
		out.Verified = out.Verified && n.Holds
		out.Needs = append(out.Needs, n)
	}
	return out
}

// identities returns the different identities that count for a requirement of the manifest,
// sorted.
func (c *Case) identities(requirement int, m Manifest) []string {
	found := map[string]bool{}
	for _, subject := range append([]digest.Digest{m.Digest}, m.Above...) {
		for _, p := range c.bySubject[subject] {
			for _, id := range c.counts(requirement, p) {
				found[id] = true
			}
		}
	}
	return append([]string{}, slices.Sorted(maps.Keys(found))...)
}

// counts returns who a piece counts for. A statement that is not signed counts for those who
// signed the manifest that it lies in.
func (c *Case) counts(requirement int, p Piece) []string {
	if !p.Unsigned || !p.Suits[requirement] {
		return p.Counts[requirement]
	}
	var out []string
	for _, signature := range c.bySubject[p.Referrer] {
		out = append(out, signature.Vouches[requirement]...)
	}
	return out
}

func (c *Case) examined(p Piece) Examined {
	e := Examined{
		Subject: p.Subject, Referrer: p.Referrer, ArtifactType: p.ArtifactType, Format: p.Format,
		Identities: []string{}, Reasons: append([]string{}, p.Reasons...),
	}
	for i, r := range c.Selection.Requirements() {
		ids := c.counts(i, p)
		for _, id := range ids {
			e.Reasons = append(e.Reasons, "counts for "+r.String()+": signed by "+id)
		}
		if p.Unsigned && p.Suits[i] && len(ids) == 0 {
			e.Reasons = append(e.Reasons, "it is not signed, and no signature of "+Short(p.Referrer)+", which holds it, is by those of "+r.String())
		}
		e.Identities = append(e.Identities, ids...)
	}
	slices.Sort(e.Identities)
	e.Identities = slices.Compact(e.Identities)
	if e.Counted = len(e.Identities) > 0; e.Counted {
		e.Reasons = append(e.Reasons, p.Notes...)
	}
	if !e.Counted && len(p.Vouchers()) > 0 {
		e.Reasons = append(e.Reasons, "it vouches for what "+Short(p.Subject)+" holds: signed by "+p.Vouchers()[0])
	}
	return e
}

// shortDigest is how many hex digits a message shows of a digest.
const shortDigest = 12

// Short returns a digest as messages show it: enough to find it, and no more.
func Short(d digest.Digest) string {
	algorithm, encoded, ok := cut(d)
	if !ok || len(encoded) <= shortDigest {
		return string(d)
	}
	return algorithm + ":" + encoded[:shortDigest]
}
