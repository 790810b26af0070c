package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// Referrer is what policy needs to know of one referrer.
type Referrer struct {
	// ArtifactType is the manifest's artifactType, or its config's media type
	// where that is empty (OCI image-spec, "Guidelines for Artifact Usage").
	ArtifactType string
	// Annotations are those of the manifest; a listing repeats them.
	Annotations map[string]string
}

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

// Selection is what one pull asks for: the rule that governs it, narrowed by
// what the client sent. It is safe for concurrent use.
type Selection struct {
	rule    rule
	pattern string // of rule.repositories, that which matched
	client  bool   // the types are the client's
}

// Depth returns how many levels of referrers to follow, at least 1.
func (s *Selection) Depth() int { return s.rule.depth }

// WithDepth returns the selection with the depth that a client asked for, in place of
// the rule's. 0 leaves the rule's. The error is errdefs.ErrInvalidArgument.
func (s *Selection) WithDepth(depth int) (*Selection, error) {
	switch {
	case depth == 0:
		return s, nil
	case depth < 0 || depth > MaxDepth:
		return nil, fmt.Errorf("selection: %w", invalid("depth", strconv.Itoa(depth)+" is out of range", fmt.Sprintf("write 1 to %d, or 0 for the rule's own", MaxDepth)))
	}
	deep := *s
	deep.rule.depth = depth
	return &deep, nil
}

// OnError returns what an unknown status does to the pull.
func (s *Selection) OnError() OnError { return s.rule.onError }

// Prune says whether a pull lets go of what the registry no longer lists.
func (s *Selection) Prune() bool { return s.rule.prune }

// Empty says that the selection takes and requires nothing, so that no registry
// needs to be asked.
func (s *Selection) Empty() bool {
	for _, t := range s.rule.types {
		if !t.deny {
			return false
		}
	}
	return len(s.rule.required) == 0
}

// Required returns the patterns of which one referrer each must be there.
func (s *Selection) Required() []string {
	var out []string
	for _, t := range s.rule.required {
		out = append(out, t.text)
	}
	return out
}

// Origin names the rule that governs, for people to read.
func (s *Selection) Origin() string {
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

// Decide judges a referrer by what a listing says of it. A type that listings
// get wrong, or a bundle whose annotation is not repeated, gives Ask.
func (s *Selection) Decide(r Referrer) Decision {
	if unreliable[normalize(r.ArtifactType)] {
		return Decision{Ask, fmt.Sprintf("%s: the listing's type %q says nothing; the manifest decides", s.Origin(), r.ArtifactType)}
	}
	return s.decide(r, Ask)
}

// DecideManifest judges a referrer by its own manifest, which is final. A bundle
// that does not say what it holds is taken where either reading is wanted.
func (s *Selection) DecideManifest(r Referrer) Decision {
	return s.decide(r, Take)
}

// decide gives unsure where the type alone does not tell.
func (s *Selection) decide(r Referrer, unsure Verdict) Decision {
	verdict := func(sure bool) Verdict {
		if sure {
			return Take
		}
		return unsure
	}
	required, requiredSure := s.rule.required.find(r, false)
	if s.denied(r) {
		required = nil
	}
	if s.client && required != nil { // a client cannot deny what the rule requires
		return Decision{verdict(requiredSure), fmt.Sprintf("%s: required %q", s.Origin(), required.text)}
	}
	if p, sure := s.rule.types.find(r, true); p != nil && sure {
		return Decision{Skip, fmt.Sprintf("%s: denied by %q", s.Origin(), p.text)}
	} else if p != nil && unsure == Ask {
		return Decision{Ask, fmt.Sprintf("%s: may be denied by %q; the manifest decides", s.Origin(), p.text)}
	}
	if p, sure := s.rule.types.find(r, false); p != nil {
		return Decision{verdict(sure), fmt.Sprintf("%s: artifact type %q", s.Origin(), p.text)}
	}
	if required != nil {
		return Decision{verdict(requiredSure), fmt.Sprintf("%s: required %q", s.Origin(), required.text)}
	}
	return Decision{Skip, fmt.Sprintf("%s: %q is not among its artifact types", s.Origin(), r.ArtifactType)}
}

// denied says whether the operator denies the referrer, whatever the client asks
// for: it may be taken then, but satisfies no requirement.
func (s *Selection) denied(r Referrer) bool {
	p, sure := s.rule.denied.find(r, true)
	return p != nil && sure
}

// Wants says whether a referrer of that artifact type would be taken.
func (s *Selection) Wants(artifactType string) bool {
	return s.DecideManifest(Referrer{ArtifactType: artifactType}).Verdict == Take
}

// Missing returns the required patterns that none of the found referrers
// satisfies. A bundle that does not say what it holds satisfies no set: what is
// required fails closed.
func (s *Selection) Missing(found []Referrer) []string {
	var missing []string
	for _, t := range s.rule.required {
		ok := false
		for _, r := range found {
			if match, sure := t.matches(r); match && sure && !s.denied(r) {
				ok = true
				break
			}
		}
		if !ok {
			missing = append(missing, t.text)
		}
	}
	return missing
}

// String describes the selection in one line.
func (s *Selection) String() string {
	var types []string
	for _, t := range s.rule.types {
		types = append(types, t.text)
	}
	prune := ""
	if s.rule.prune {
		prune = ", prune"
	}
	return fmt.Sprintf("%s: takes [%s], requires [%s], depth %d, on_error %s%s",
		s.Origin(), strings.Join(types, " "), strings.Join(s.Required(), " "), s.rule.depth, s.rule.onError, prune)
}
