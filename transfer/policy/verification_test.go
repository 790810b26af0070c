package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// What cannot be meant is refused, with the key and the remedy.
func TestVerificationThatIsRefused(t *testing.T) {
	t.Parallel()
	signed := []Signed{{By: []string{"release"}}}
	attested := []Attested{{PredicateType: "https://slsa.dev/provenance/v1", By: []string{"ci"}}}
	for name, tc := range map[string]struct {
		rule Rule
		want string
	}{
		"verify alone":                 {Rule{Verify: VerifyEnforce}, "verify: is there without signed or attested"},
		"signed without verify":        {Rule{Signed: signed}, "verify: is missing"},
		"attested without verify":      {Rule{Attested: attested}, "verify: is missing"},
		"another mode":                 {Rule{Verify: "audit", Signed: signed}, `verify: "audit" is not known; write "enforce" or "warn"`},
		"by nobody":                    {Rule{Verify: VerifyWarn, Signed: []Signed{{}}}, "signed 1: by: is missing"},
		"by an empty name":             {Rule{Verify: VerifyWarn, Signed: []Signed{signed[0], {By: []string{""}}}}, `signed 2: by: has the name ""`},
		"fewer than none":              {Rule{Verify: VerifyWarn, Signed: []Signed{{By: []string{"a"}, AtLeast: -1}}}, "at_least: -1 is out of range"},
		"no predicate type":            {Rule{Verify: VerifyWarn, Attested: []Attested{{By: []string{"a"}}}}, "attested 1: predicate_type: is missing"},
		"a condition that is none":     {Rule{Verify: VerifyWarn, Attested: []Attested{{PredicateType: "x", By: []string{"a"}, Where: []Condition{{}}}}}, "attested 1: where 1: "},
		"too many entries":             {Rule{Verify: VerifyWarn, Signed: slices.Repeat(signed, maxEntries+1)}, "33 entries"},
		"signatures denied":            {Rule{Verify: VerifyWarn, Signed: signed, ArtifactTypes: []string{"all", "!signatures"}}, `"!signatures" denies what verify needs`},
		"attestations denied":          {Rule{Verify: VerifyWarn, Attested: attested, ArtifactTypes: []string{"!attestations"}}, `"!attestations" denies what verify needs`},
		"all denied":                   {Rule{Verify: VerifyWarn, Signed: signed, ArtifactTypes: []string{"!**"}}, `"!**" denies what verify needs`},
		"deny beside verify":           {Rule{Deny: true, Verify: VerifyEnforce, Signed: signed}, "deny: is true beside keys"},
		"deny beside what is taken":    {Rule{Deny: true, ArtifactTypes: []string{"all"}}, "deny: is true beside keys"},
		"deny beside what is required": {Rule{Deny: true, Required: []string{"signatures"}}, "deny: is true beside keys"},
		"deny beside a depth":          {Rule{Deny: true, Depth: 1}, "deny: is true beside keys"},
	} {
		tc.rule.Repositories = []string{"**"}
		if _, err := New([]Rule{tc.rule}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "rule 1: ") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an errdefs.ErrInvalidArgument with %q", name, err, tc.want)
		}
	}
	for name, rule := range map[string]Rule{
		"one type of signatures is denied":       {Verify: VerifyEnforce, Signed: signed, ArtifactTypes: []string{"!application/vnd.cncf.notary.signature"}},
		"attestations denied that nothing needs": {Verify: VerifyEnforce, Signed: signed, ArtifactTypes: []string{"!attestations"}},
		"deny alone":                             {Deny: true},
	} {
		rule.Repositories = []string{"**"}
		if _, err := New([]Rule{rule}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Evidence is taken whatever the rule or the client names, and nothing else is.
func TestEvidenceIsTaken(t *testing.T) {
	t.Parallel()
	signs := Rule{Repositories: []string{"**"}, Verify: VerifyEnforce, Signed: []Signed{{By: []string{"release"}}}}
	attests := Rule{Repositories: []string{"**"}, Verify: VerifyWarn, Attested: []Attested{{PredicateType: "x", By: []string{"ci"}}}}
	for _, tc := range []struct {
		rule         Rule
		signatures   bool
		attestations bool
	}{{signs, true, false}, {attests, true, true}} {
		for _, client := range [][]string{nil, {"sboms"}, {"!signatures", "!attestations"}, {"application/vnd.example"}} {
			s := mustSelect(t, []Rule{tc.rule}, "a.test/app", client...)
			if s.Empty() {
				t.Errorf("client %q: nothing is asked for", client)
			}
			if got := s.Wants("application/vnd.cncf.notary.signature"); got != tc.signatures {
				t.Errorf("client %q: signatures are taken: %v", client, got)
			}
			if got := s.Wants("application/vnd.in-toto+json"); got != tc.attestations {
				t.Errorf("client %q: attestations are taken: %v", client, got)
			}
			if s.Wants("text/html") {
				t.Errorf("client %q: other types are taken", client)
			}
		}
		if d := mustSelect(t, []Rule{tc.rule}, "a.test/app").Decide(artifact.Referrer{ArtifactType: artifact.TypeCosignSignature}); !strings.Contains(d.Reason, `"signatures" are evidence`) {
			t.Errorf("the reason is %q", d.Reason)
		}
	}
}

func TestSummaryOfRules(t *testing.T) {
	t.Parallel()
	all := []string{"**"}
	p, err := New([]Rule{
		{Repositories: all, Required: []string{"signatures"}},
		{Repositories: all, Verify: VerifyEnforce, Signed: []Signed{{By: []string{"a"}}}, Required: []string{"sboms"}},
		{Repositories: all, Verify: VerifyWarn, Signed: []Signed{{By: []string{"a"}}}},
		{Repositories: all, Deny: true},
		{Repositories: all},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Summary(), (Summary{Rules: 5, Requiring: 2, Enforcing: 1, Warning: 1, Denying: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if p, err := New(nil); err != nil || !p.Summary().BuiltIn {
		t.Errorf("no rules: %+v, %v", p.Summary(), err)
	}
}

// Each requirement is told of by the words that find it in the configuration.
func TestEachRequirement(t *testing.T) {
	t.Parallel()
	p, err := New([]Rule{
		{Repositories: []string{"a.test/**"}},
		{
			Repositories: []string{"**"}, Verify: VerifyEnforce,
			Signed:   []Signed{{By: []string{"a"}}, {By: []string{"b", "c"}, AtLeast: 2, SignedRepository: true}},
			Attested: []Attested{{PredicateType: "x", By: []string{"d"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = p.EachRequirement(func(where string, r Requirement) error {
		got = append(got, where+": "+r.String())
		if r.Kind == evidence.Signature && r.SignedRepository != (r.AtLeast == 2) {
			t.Errorf("%+v", r)
		}
		return nil
	})
	want := []string{"rule 2: signed 1: a signature by a", "rule 2: signed 2: 2 signatures by b or c, for this repository", "rule 2: attested 1: an attestation x by d"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}
