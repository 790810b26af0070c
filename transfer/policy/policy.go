// Package policy decides which referrers of an image to take, and why.
//
// An operator writes rules; each rule names repositories, the artifact types to
// take from them and the types that must be there. [New] checks and compiles the
// rules, [Policy.Select] picks the one that governs a pull and replaces its artifact
// types by those that the client sent, [Selection.Decide] judges one referrer, and
// [Selection.Missing] names the required types that a pull lacks at its end.
//
// The package is pure: values in, values out, no I/O and no clock.
package policy

import (
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// OnError is what the status "unknown" does to a pull.
type OnError string

const (
	// Warn lets the pull go on, with a warning in the log and the status label.
	// It is the default.
	Warn OnError = "warn"
	// Fail fails the pull.
	Fail OnError = "fail"
)

// DefaultDepth is the depth of a rule that names none: the referrers of the
// image, and the referrers of those, except of signatures (see [Selection.Follows]).
const DefaultDepth = 2

// MaxDepth is the largest depth a rule may ask for. Each level costs a listing
// for every referrer of the level above.
const MaxDepth = 8

// DefaultArtifactTypes is what the built-in rule takes, which governs every pull if
// the operator wrote no rules at all.
var DefaultArtifactTypes = []string{artifact.SetSignatures, artifact.SetAttestations}

// Rule is one rule as the operator writes it.
type Rule struct {
	// Repositories are globs over the name of the repository with its
	// registry, "registry.example.com/prod/**". At least one is needed.
	Repositories []string `toml:"repositories"`
	// ArtifactTypes are what to take: exact media types, globs, sets, and
	// denials that begin with "!". Empty takes only what Required names.
	ArtifactTypes []string `toml:"artifact_types"`
	// Required are artifact types, globs or sets of which one referrer each
	// must be found, or the pull fails. Empty requires nothing.
	Required []string `toml:"required"`
	// Depth is how far to go: 1 takes the referrers of the image, 2 also
	// theirs. 0 means DefaultDepth, at which no referrers of signatures are
	// looked for.
	Depth int `toml:"depth"`
	// OnError is "warn" or "fail"; empty means "warn".
	OnError OnError `toml:"on_error"`
	// Prune removes a stored referrer that the registry no longer lists when the
	// image is pulled again. False keeps it.
	Prune bool `toml:"prune"`
	// Verify is "enforce" or "warn": what happens to an image for which an entry of Signed
	// or Attested does not hold. Empty verifies nothing.
	Verify Verify `toml:"verify"`
	// Signed and Attested are what must hold of every manifest of the image that is pulled,
	// by evidence on it or on an index above it. Evidence is taken whatever ArtifactTypes
	// names.
	Signed   []Signed   `toml:"signed"`
	Attested []Attested `toml:"attested"`
	// Deny refuses every image of the repositories.
	Deny bool `toml:"deny"`
}

// Policy is a compiled list of rules. It is safe for concurrent use.
type Policy struct {
	rules []rule
}

type rule struct {
	number       int // as the operator counts them, from 1; 0 is the built-in one
	repositories []glob
	types        typeList
	required     typeList
	denied       typeList // of types, as the operator wrote them: what may satisfy no requirement
	depth        int
	depthSet     bool // by the operator, or by the client; else it is DefaultDepth
	onError      OnError
	prune        bool

	deny         bool
	verify       Verify
	requirements []Requirement
	evidence     typeList // what verify needs
}

// New compiles rules, of which the first that matches a repository governs it.
// No rules at all stand for one that takes [DefaultArtifactTypes] from every
// repository. The error names the rule, the key and what to write instead, and
// is errdefs.ErrInvalidArgument.
func New(rules []Rule) (*Policy, error) {
	if len(rules) == 0 {
		p, err := New([]Rule{{Repositories: []string{"**"}, ArtifactTypes: DefaultArtifactTypes}})
		if err != nil {
			return nil, err
		}
		p.rules[0].number = 0
		return p, nil
	}
	p := &Policy{}
	for i, r := range rules {
		compiled, err := compile(r)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		compiled.number = i + 1
		p.rules = append(p.rules, compiled)
	}
	return p, nil
}

func compile(r Rule) (rule, error) {
	out := rule{depth: r.Depth, depthSet: r.Depth != 0, onError: r.OnError, prune: r.Prune}
	if len(r.Repositories) == 0 {
		return rule{}, invalid("repositories", "is missing", `name at least one, "**" for all`)
	}
	for _, pattern := range r.Repositories {
		g, err := repositoryGlob(pattern)
		if err != nil {
			return rule{}, fmt.Errorf("repositories: %w", err)
		}
		out.repositories = append(out.repositories, g)
	}
	var err error
	if out.types, err = parseTypes(r.ArtifactTypes); err != nil {
		return rule{}, fmt.Errorf("artifact_types: %w", err)
	}
	if out.required, err = parseTypes(r.Required); err != nil {
		return rule{}, fmt.Errorf("required: %w", err)
	}
	for _, t := range out.types {
		if t.deny {
			out.denied = append(out.denied, t)
		}
	}
	for _, t := range out.required {
		if t.deny {
			return rule{}, invalid("required", strconv.Quote(t.text)+" is a denial", "name what must be there; denials belong into artifact_types")
		}
	}
	for _, t := range out.required {
		if d := out.denied.excludes(t); d != nil {
			return rule{}, invalid("required", fmt.Sprintf("%q is denied by %q in artifact_types, so that every pull would fail", t.text, d.text), "remove one of the two")
		}
	}
	switch {
	case r.Depth == 0:
		out.depth = DefaultDepth
	case r.Depth < 0 || r.Depth > MaxDepth:
		return rule{}, invalid("depth", strconv.Itoa(r.Depth)+" is out of range", fmt.Sprintf("write 1 to %d", MaxDepth))
	}
	switch r.OnError {
	case "":
		out.onError = Warn
	case Warn, Fail:
	default:
		return rule{}, invalid("on_error", strconv.Quote(string(r.OnError))+" is not known", `write "warn" or "fail"`)
	}
	if err := out.compileVerification(r); err != nil {
		return rule{}, err
	}
	return out, nil
}

// Select returns what a pull from the repository asks for. The repository is
// named as containerd's references name it: with its registry, without tag or
// digest ("docker.io/library/alpine").
//
// clientTypes are the artifact types that the client sent; they replace those
// of the rule, but not what it requires. An empty list leaves the rule's; the
// client's depth is for [Selection.WithDepth]. Where no rule matches, only what the
// client names is taken, at the default depth.
func (p *Policy) Select(repository string, clientTypes []string) (*Selection, error) {
	s := &Selection{rule: rule{depth: DefaultDepth, onError: Warn, number: -1}}
	for _, r := range p.rules {
		if pattern, ok := r.matches(repository); ok {
			s.rule, s.pattern = r, pattern
			break
		}
	}
	if len(clientTypes) > 0 {
		types, err := parseTypes(clientTypes)
		if err != nil {
			return nil, fmt.Errorf("selection: artifact_types: %w", err)
		}
		s.rule.types, s.client = types, true
	}
	return s, nil
}

func (r rule) matches(repository string) (string, bool) {
	for _, g := range r.repositories {
		if g.matchSpelt(repository) {
			return g.text, true
		}
	}
	return "", false
}

func invalid(key, what, remedy string) error {
	return fmt.Errorf("%s: %s; %s: %w", key, what, remedy, errdefs.ErrInvalidArgument)
}
