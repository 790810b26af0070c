package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// Verdict is what to do with a referrer.
type Verdict int

const (
	// Skip leaves the referrer in the registry.
	Skip Verdict = iota
	// Take brings it in.
	Take
	// Ask says that the listing does not tell enough: its manifest decides.
	Ask
)

func (v Verdict) String() string {
	switch v {
	case Skip:
		return "skip"
	case Take:
		return "take"
	case Ask:
		return "ask"
	}
	return fmt.Sprintf("Verdict(%d)", int(v))
}

// Decision is a verdict with the reason for it, for people to read.
type Decision struct {
	Verdict Verdict
	Reason  string
}

// Selection is what one pull asks for: the rule that governs it, with the artifact
// types and the depth that the client sent in place of its own. What the rule
// requires stays. It is safe for concurrent use.
type Selection struct {
	rule    rule
	pattern string // of rule.repositories, that which matched
	client  bool   // the types are the client's
}

// Depth returns how many levels of referrers to follow, at least 1.
func (s *Selection) Depth() int { return s.rule.depth }

// Follows reports whether the referrers of a referrer are looked for, within the depth.
// Nothing refers to a signature as a rule, and each would cost a listing at every pull: that
// is for a depth that was asked for. A sigstore bundle that does not say what it holds may
// be an attestation, which is signed.
func (s *Selection) Follows(r artifact.Referrer) bool {
	return s.rule.depthSet || slices.ContainsFunc(artifact.Readings(r), func(as artifact.Reading) bool {
		return as.Set != artifact.SetSignatures
	})
}

// WithDepth returns the selection with the depth that a client asked for, where that
// is less than the rule's: depth is a limit, which a client does not lift. 0 leaves the
// rule's. A depth that a client names is followed from signatures as well (see
// [Selection.Follows]). The error is errdefs.ErrInvalidArgument.
func (s *Selection) WithDepth(depth int) (*Selection, error) {
	switch {
	case depth == 0:
		return s, nil
	case depth < 0 || depth > MaxDepth:
		return nil, fmt.Errorf("selection: %w", invalid("depth", strconv.Itoa(depth)+" is out of range", fmt.Sprintf("write 1 to %d, or 0 for the rule's own", MaxDepth)))
	}
	shallow := *s
	shallow.rule.depth, shallow.rule.depthSet = min(depth, s.rule.depth), true
	return &shallow, nil
}

// OnError returns what an unknown status does to the pull.
func (s *Selection) OnError() OnError { return s.rule.onError }

// Prune reports whether a pull removes what the registry no longer lists.
func (s *Selection) Prune() bool { return s.rule.prune }

// Empty says that the selection takes and requires nothing, so that no registry
// needs to be asked.
func (s *Selection) Empty() bool {
	if s == nil {
		return true
	}
	for _, t := range s.rule.types {
		if !t.deny {
			return false
		}
	}
	return len(s.rule.required) == 0 && s.rule.verify == ""
}

// Required returns the patterns of which one referrer each must be there.
func (s *Selection) Required() []string {
	var out []string
	for _, t := range s.rule.required {
		out = append(out, t.text)
	}
	return out
}

// RuleName names the rule that governs, for people to read.
func (s *Selection) RuleName() string {
	var origin string
	switch s.rule.number {
	case -1:
		origin = "no rule matches the repository"
	case 0:
		origin = "the built-in rule (no rules are configured)"
	default:
		origin = fmt.Sprintf("rule %d, repository %q", s.rule.number, s.pattern)
	}
	if s.client {
		origin += ", artifact types of the client's selection"
	}
	return origin
}

// unreliable are artifact types that a listing shows where it never read the
// manifest's artifactType: registries that list the config's media type
// instead. Only the manifest can tell what such a referrer is.
var unreliable = map[string]bool{
	"":                                  true,
	"application/vnd.oci.empty.v1+json": true,
	"application/vnd.oci.image.config.v1+json":       true,
	"application/vnd.docker.container.image.v1+json": true,
}

// Decide judges a referrer by what a listing says of it. A type that listings get
// wrong gives Ask, and so does a bundle whose annotation the listing does not repeat,
// where that would decide.
func (s *Selection) Decide(r artifact.Referrer) Decision {
	if unreliable[artifact.NormalizeType(r.ArtifactType)] {
		return Decision{Ask, fmt.Sprintf("%s: the listing's type %q says nothing; the manifest decides", s.RuleName(), r.ArtifactType)}
	}
	decision, sure := s.decide(r)
	if !sure {
		decision.Verdict, decision.Reason = Ask, decision.Reason+", if it is what that names; the manifest decides"
	}
	return decision
}

// DecideManifest judges a referrer by its own manifest, which is final. A bundle
// that does not say what it holds is taken where either reading is wanted.
func (s *Selection) DecideManifest(r artifact.Referrer) Decision {
	decision, _ := s.decide(r)
	return decision
}

// decide takes a referrer one of whose readings is wanted. sure is false where
// another is not.
func (s *Selection) decide(r artifact.Referrer) (decision Decision, sure bool) {
	all := artifact.Readings(r)
	decision = s.judge(all[0], r)
	sure = true
	for _, other := range all[1:] {
		d := s.judge(other, r)
		sure = sure && d.Verdict == decision.Verdict
		if d.Verdict == Take && decision.Verdict != Take {
			decision = d
		}
	}
	return decision, sure
}

// judge judges one reading of the referrer.
func (s *Selection) judge(as artifact.Reading, r artifact.Referrer) Decision {
	required, needed := s.rule.required.find(as, false), s.rule.evidence.find(as, false)
	if s.rule.denied.find(as, true) != nil {
		required, needed = nil, nil
	}
	if s.client && required != nil { // a client cannot deny what the rule requires
		return Decision{Take, fmt.Sprintf("%s: required %q", s.RuleName(), required.text)}
	}
	if s.client && needed != nil {
		return Decision{Take, fmt.Sprintf("%s: %q are evidence", s.RuleName(), needed.text)}
	}
	if p := s.rule.types.find(as, true); p != nil {
		return Decision{Skip, fmt.Sprintf("%s: denied by %q", s.RuleName(), p.text)}
	}
	if p := s.rule.types.find(as, false); p != nil {
		return Decision{Take, fmt.Sprintf("%s: artifact type %q", s.RuleName(), p.text)}
	}
	if required != nil {
		return Decision{Take, fmt.Sprintf("%s: required %q", s.RuleName(), required.text)}
	}
	if needed != nil {
		return Decision{Take, fmt.Sprintf("%s: %q are evidence", s.RuleName(), needed.text)}
	}
	return Decision{Skip, fmt.Sprintf("%s: %q is not among its artifact types", s.RuleName(), r.ArtifactType)}
}

// Wants reports whether a referrer of that artifact type would be taken.
func (s *Selection) Wants(artifactType string) bool {
	return s.DecideManifest(artifact.Referrer{ArtifactType: artifactType}).Verdict == Take
}

// Missing returns the required patterns that none of the found referrers satisfies.
// What is required fails closed: see [Selection.Uncounted] for what does not count.
func (s *Selection) Missing(found []artifact.Referrer) []string {
	var missing []string
	for _, t := range s.rule.required {
		if !slices.ContainsFunc(found, func(r artifact.Referrer) bool { return s.satisfies(t, r) == "" }) {
			missing = append(missing, t.text)
		}
	}
	return missing
}

// Uncounted says why a referrer satisfies none of the required patterns though it
// seems to be of one; "" where it satisfies one, or is of none.
func (s *Selection) Uncounted(r artifact.Referrer) string {
	why := ""
	for _, t := range s.rule.required {
		switch reason := s.satisfies(t, r); reason {
		case "":
			return ""
		case otherType:
		default:
			why = reason
		}
	}
	return why
}

// otherType is why a referrer does not satisfy what it has nothing to do with.
const otherType = "it is of another type"

// satisfies says why the referrer does not satisfy the required pattern, "" where it
// does. Each of its readings must, and none may be one that the operator denies,
// whatever a client asks for. A signature, an attestation or an SBOM without any
// content is none, by whatever pattern it is required; an artifact of another type may
// be all annotations.
func (s *Selection) satisfies(t typePattern, r artifact.Referrer) string {
	all := artifact.Readings(r)
	matching := 0
	var denied *typePattern
	for _, as := range all {
		if t.matches(as) {
			matching++
		}
		if p := s.rule.denied.find(as, true); p != nil {
			denied = p
		}
	}
	switch {
	case matching == 0:
		return otherType
	case matching < len(all):
		return fmt.Sprintf("it does not say what it holds (annotation %s)", artifact.AnnotationPredicate)
	case denied != nil:
		return fmt.Sprintf("the rule denies it by %q", denied.text)
	case all[0].Set != "" && r.Hollow:
		return "it has no content"
	}
	return ""
}

// String describes the selection in one line.
func (s *Selection) String() string {
	var types []string
	for _, t := range s.rule.types {
		types = append(types, t.text)
	}
	if s.rule.deny {
		return s.RuleName() + ": denies every image"
	}
	more := ""
	if s.rule.prune {
		more = ", prune"
	}
	for i, r := range s.rule.requirements {
		if i == 0 {
			more += fmt.Sprintf(", verify %s", s.rule.verify)
		}
		more += fmt.Sprintf("; needs %s", r)
	}
	return fmt.Sprintf("%s: takes [%s], requires [%s], depth %d, on_error %s%s",
		s.RuleName(), strings.Join(types, " "), strings.Join(s.Required(), " "), s.rule.depth, s.rule.onError, more)
}
