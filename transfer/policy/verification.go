package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// Verify is what a rule does with an image whose evidence does not hold.
type Verify string

const (
	// VerifyEnforce refuses the image: no layer of it is fetched.
	VerifyEnforce Verify = "enforce"
	// VerifyWarn lets the pull go on, with a warning in the log.
	VerifyWarn Verify = "warn"
)

// Signed is an entry of a rule's signed: who must have signed the image.
type Signed struct {
	// By are names of trusts, any of which is enough.
	By []string `toml:"by"`
	// AtLeast is how many different identities must have signed. 0 means 1.
	AtLeast int `toml:"at_least"`
	// SignedRepository counts a signature only if the name that it signs is that of the
	// image's repository: a copy elsewhere does not verify. False takes any.
	SignedRepository bool `toml:"signed_repository"`
}

// Attested is an entry of a rule's attested: what somebody must have attested of the image.
type Attested struct {
	// PredicateType is that of the signed statement, to the letter.
	PredicateType string `toml:"predicate_type"`
	// By, AtLeast and SignedRepository are as those of Signed.
	By               []string `toml:"by"`
	AtLeast          int      `toml:"at_least"`
	SignedRepository bool     `toml:"signed_repository"`
	// Where are conditions on the signed predicate, all of which must hold. None accepts
	// any predicate.
	Where []Condition `toml:"where"`
}

// Requirement is an entry of signed or attested: what must hold of every manifest of an
// image that is pulled.
type Requirement struct {
	Kind             evidence.Kind
	PredicateType    string // of an attestation
	By               []string
	AtLeast          int // different identities, at least 1
	SignedRepository bool

	where []condition
}

// String describes the requirement for people to read: "2 signatures by release or ci",
// "an attestation https://slsa.dev/provenance/v1 by ci".
func (r Requirement) String() string {
	what := "signature"
	if r.Kind == evidence.Attestation {
		what = "attestation"
	}
	switch {
	case r.AtLeast > 1:
		what = fmt.Sprintf("%d %ss", r.AtLeast, what)
	case r.Kind == evidence.Attestation:
		what = "an " + what
	default:
		what = "a " + what
	}
	if r.PredicateType != "" {
		what += " " + r.PredicateType
	}
	what += " by " + strings.Join(r.By, " or ")
	if r.SignedRepository {
		what += ", for this repository"
	}
	return what
}

// maxEntries is how many entries a rule may have, of signed and attested together.
const maxEntries = 32

// compileVerification compiles what the rule verifies, and what it denies.
func (out *rule) compileVerification(r Rule) error {
	entries := len(r.Signed) + len(r.Attested)
	switch {
	case r.Deny:
		if entries > 0 || r.Verify != "" || len(r.ArtifactTypes) > 0 || len(r.Required) > 0 || r.Depth != 0 || r.OnError != "" || r.Prune {
			return invalid("deny", "is true beside keys of images that are pulled", "leave nothing but repositories in the rule")
		}
		out.deny = true
		return nil
	case r.Verify == "" && entries > 0:
		return invalid("verify", "is missing, so that signed and attested would do nothing", `write verify = "enforce", or "warn" to try it`)
	case r.Verify == "":
		return nil
	case r.Verify != VerifyEnforce && r.Verify != VerifyWarn:
		return invalid("verify", strconv.Quote(string(r.Verify))+" is not known", `write "enforce" or "warn"`)
	case entries == 0:
		return invalid("verify", "is there without signed or attested, so that nothing would be verified", `add a [[….rules.signed]] table with by = ["…"]`)
	case entries > maxEntries:
		return invalid("signed", fmt.Sprintf("and attested have %d entries", entries), fmt.Sprintf("write %d at most", maxEntries))
	}
	out.verify = r.Verify
	for i, s := range r.Signed {
		req := Requirement{Kind: evidence.Signature, By: s.By, AtLeast: s.AtLeast, SignedRepository: s.SignedRepository}
		if err := out.require(req, nil); err != nil {
			return fmt.Errorf("signed %d: %w", i+1, err)
		}
	}
	for i, a := range r.Attested {
		if a.PredicateType == "" {
			return fmt.Errorf("attested %d: %w", i+1, invalid("predicate_type", "is missing", `write what is attested, such as "https://slsa.dev/provenance/v1"`))
		}
		req := Requirement{Kind: evidence.Attestation, PredicateType: a.PredicateType, By: a.By, AtLeast: a.AtLeast, SignedRepository: a.SignedRepository}
		if err := out.require(req, a.Where); err != nil {
			return fmt.Errorf("attested %d: %w", i+1, err)
		}
	}
	return out.needEvidence()
}

func (out *rule) require(req Requirement, where []Condition) error {
	switch {
	case len(req.By) == 0:
		return invalid("by", "is missing", `name a trust, by = ["release"]`)
	case slices.Contains(req.By, ""):
		return invalid("by", `has the name ""`, "name a trust")
	case req.AtLeast < 0:
		return invalid("at_least", strconv.Itoa(req.AtLeast)+" is out of range", "write 1 or more")
	case req.AtLeast == 0:
		req.AtLeast = 1
	}
	var err error
	if req.where, err = compileConditions(where); err != nil {
		return err
	}
	out.requirements = append(out.requirements, req)
	return nil
}

// needEvidence adds the types that evidence has to what is taken, whatever artifact_types
// names. An attestation that is not signed itself is signed one level down.
func (out *rule) needEvidence() error {
	sets := []string{artifact.SetSignatures}
	if slices.ContainsFunc(out.requirements, func(r Requirement) bool { return r.Kind == evidence.Attestation }) {
		sets = append(sets, artifact.SetAttestations)
	}
	var err error
	if out.evidence, err = parseTypes(sets); err != nil {
		return err
	}
	for _, t := range out.evidence {
		if d := out.denied.excludes(t); d != nil {
			return invalid("artifact_types", fmt.Sprintf("%q denies what verify needs", d.text), "remove it")
		}
	}
	return nil
}

// Denied reports whether the rule lets no image of the repository be pulled.
func (s *Selection) Denied() bool { return s != nil && s.rule.deny }

// Verify returns what happens to an image whose evidence does not hold, "" where nothing is
// verified.
func (s *Selection) Verify() Verify {
	if s == nil {
		return ""
	}
	return s.rule.verify
}

// Requirements are what must hold of each manifest of the image: first those of signed.
func (s *Selection) Requirements() []Requirement { return s.rule.requirements }

// FollowsEvidence reports whether the referrers of a referrer are looked for whatever the
// depth: who signed BuildKit's attestation manifest vouches for what it says.
func (s *Selection) FollowsEvidence(m *artifact.Manifest) bool {
	return s.needsAttestation() && evidence.HasStatement(m)
}

func (s *Selection) needsAttestation() bool {
	return slices.ContainsFunc(s.rule.requirements, func(r Requirement) bool { return r.Kind == evidence.Attestation })
}

// Summary counts the rules for the line that says whether the daemon enforces.
type Summary struct {
	Rules, Requiring, Enforcing, Warning, Denying int
	// BuiltIn says that the operator wrote no rules.
	BuiltIn bool
}

// Summary counts the rules.
func (p *Policy) Summary() Summary {
	s := Summary{Rules: len(p.rules)}
	for _, r := range p.rules {
		s.BuiltIn = s.BuiltIn || r.number == 0
		if len(r.required) > 0 {
			s.Requiring++
		}
		switch {
		case r.deny:
			s.Denying++
		case r.verify == VerifyEnforce:
			s.Enforcing++
		case r.verify == VerifyWarn:
			s.Warning++
		}
	}
	return s
}

// EachRequirement calls f with the requirements of all rules, each with the words that name
// it in an error.
func (p *Policy) EachRequirement(f func(where string, r Requirement) error) error {
	for _, r := range p.rules {
		signed := 0
		for i, req := range r.requirements {
			where := fmt.Sprintf("rule %d: attested %d", r.number, i+1-signed)
			if req.Kind == evidence.Signature {
				signed++
				where = fmt.Sprintf("rule %d: signed %d", r.number, i+1)
			}
			if err := f(where, req); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
		}
	}
	return nil
}
