package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Proof is what a trust says of a piece of evidence.
type Proof struct {
	Trust    string
	Verified evidence.Verified
	// Why says why it proves nothing by this trust, "" where it does.
	Why string
}

// Weight is what a piece of evidence is worth to the requirements of a rule, each by its
// place among them.
type Weight struct {
	// Counts are the identities that it counts for.
	Counts map[int][]string
	// Vouches are the identities that signed the subject, by those whom a requirement of
	// an attestation names: for a statement that the subject holds.
	Vouches map[int][]string
	// Unsigned says that the piece is a statement that others must vouch for; Suits, for which
	// requirements it has the type and the predicate.
	Unsigned bool
	Suits    map[int]bool
	// Reasons say why it does not count, for people to read; Notes, where it does, what was not
	// checked.
	Reasons, Notes []string
	// Near says that it is valid, and by somebody whom the rule names: what keeps it from
	// counting is what a refusal has to say first.
	Near bool
}

// Vouchers returns all identities that Vouches has, sorted.
func (w Weight) Vouchers() []string {
	var all []string
	for _, ids := range w.Vouches {
		all = append(all, ids...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// maxReasons is how many reasons of one piece of evidence are kept.
const maxReasons = 8

// Weigh finds what a piece is worth by its proofs. The repository is that of the image.
func Weigh(requirements []policy.Requirement, repository string, proofs []Proof) Weight {
	w := Weight{Counts: map[int][]string{}, Vouches: map[int][]string{}}
	for _, p := range proofs {
		if p.Why != "" {
			w.note(fmt.Sprintf("trust %s: %s", p.Trust, p.Why))
			continue
		}
		asked := false
		for i, r := range requirements {
			if !slices.Contains(r.By, p.Trust) {
				continue
			}
			asked, w.Near = true, true
			w.weigh(i, r, repository, p)
		}
		if !asked {
			w.note(fmt.Sprintf("it is by %s, whom no requirement names", p.Verified.Identity))
		}
	}
	return w
}

func (w *Weight) weigh(i int, r policy.Requirement, repository string, p Proof) {
	v := p.Verified
	if r.SignedRepository && !slices.ContainsFunc(v.Names, func(name string) bool { return policy.SameRepository(name, repository) }) {
		w.note(fmt.Sprintf("%s signed it under the name %s, and signed_repository wants %s", v.Identity, signedNames(v.Names), repository))
		return
	}
	if r.Kind == evidence.Attestation && v.Kind == evidence.Signature {
		w.Vouches[i] = add(w.Vouches[i], v.Identity)
		return
	}
	if r.Kind != v.Kind {
		w.note(fmt.Sprintf("it is an attestation %.200q by %s, and no signature", v.PredicateType, v.Identity))
		return
	}
	if why := unsuited(r, v.PredicateType, v.Predicate); why != "" {
		w.note(fmt.Sprintf("%s by %s: %s", v.Kind, v.Identity, why))
		return
	}
	w.Counts[i] = add(w.Counts[i], v.Identity)
	w.Notes = append(w.Notes, v.Notes...)
}

// WeighStatement finds what a statement that is not signed itself would be worth.
func WeighStatement(requirements []policy.Requirement, s *evidence.InToto) Weight {
	w := Weight{Unsigned: true, Suits: map[int]bool{}}
	for i, r := range requirements {
		if r.Kind != evidence.Attestation {
			continue
		}
		if why := unsuited(r, s.PredicateType, s.Predicate); why != "" {
			w.note("statement: " + why)
			continue
		}
		w.Suits[i] = true
	}
	return w
}

// Unread is the weight of a piece that was not examined.
func Unread(why string) Weight { return Weight{Reasons: []string{why}} }

// unsuited says why a predicate is not what the requirement is about, "" where it is.
func unsuited(r policy.Requirement, predicateType string, predicate []byte) string {
	if r.Kind != evidence.Attestation {
		return ""
	}
	if predicateType != r.PredicateType {
		return fmt.Sprintf("its predicate type is %.200q, not %q", predicateType, r.PredicateType)
	}
	if err := r.Check(predicate); err != nil {
		return err.Error()
	}
	return ""
}

func (w *Weight) note(reason string) {
	if len(w.Reasons) < maxReasons && !slices.Contains(w.Reasons, reason) {
		w.Reasons = append(w.Reasons, reason)
	}
}

func add(ids []string, id string) []string {
	if slices.Contains(ids, id) {
		return ids
	}
	return append(ids, id)
}

func signedNames(names []string) string {
	switch len(names) {
	case 0:
		return `""`
	case 1:
		return fmt.Sprintf("%.100q", names[0])
	}
	return fmt.Sprintf("%.100q and %d more", names[0], len(names)-1)
}

func cut(d digest.Digest) (algorithm, encoded string, ok bool) {
	return strings.Cut(string(d), ":")
}

// PredicateTypes are the predicate types that requirements ask for, sorted.
func PredicateTypes(requirements []policy.Requirement) []string {
	all := map[string]bool{}
	for _, r := range requirements {
		if r.Kind == evidence.Attestation {
			all[r.PredicateType] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
