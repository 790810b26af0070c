package verdict_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

const (
	provenance = "https://slsa.dev/provenance/v1"
	repository = "registry.example.com/prod/app"
)

var (
	index = digest.FromString("index")
	inner = digest.FromString("an index within it")
	amd64 = digest.FromString("amd64")
	arm64 = digest.FromString("arm64")
	other = digest.FromString("another image")
)

func selection(t *testing.T, rule policy.Rule) *policy.Selection {
	t.Helper()
	rule.Repositories = []string{"**"}
	if rule.Verify == "" && !rule.Deny {
		rule.Verify = policy.VerifyEnforce
	}
	p, err := policy.New([]policy.Rule{rule})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select(repository, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// by is a proof of a signature.
func by(trust, identity string) verdict.Proof {
	return verdict.Proof{Trust: trust, Verified: evidence.Verified{Kind: evidence.Signature, Identity: identity}}
}

// attests is a proof of an attestation.
func attests(trust, identity, predicateType, predicate string) verdict.Proof {
	return verdict.Proof{Trust: trust, Verified: evidence.Verified{
		Kind: evidence.Attestation, Identity: identity, PredicateType: predicateType, Predicate: []byte(predicate),
	}}
}

// piece is one that the proofs make of a referrer of the subject.
type piece struct {
	subject digest.Digest
	proofs  []verdict.Proof
	// unsigned is the predicate of a statement that is not signed; its referrer is named by
	// in.
	unsigned string
	in       digest.Digest
}

func judged(s *policy.Selection, pieces []piece, manifests ...verdict.Manifest) *verdict.Verdict {
	c := verdict.Case{Image: repository + ":v1", Selection: s, Manifests: manifests}
	for i, p := range pieces {
		made := verdict.Piece{Subject: p.subject, Referrer: digest.FromString(fmt.Sprint("referrer ", i)), Format: evidence.Bundle}
		if p.unsigned != "" {
			made.Format, made.Referrer = evidence.Statement, p.in
			made.Weight = verdict.WeighStatement(s.Requirements(), &evidence.InToto{PredicateType: provenance, Predicate: []byte(p.unsigned)})
		} else {
			made.Weight = verdict.Weigh(s.Requirements(), repository, p.proofs)
		}
		c.Pieces = append(c.Pieces, made)
	}
	return c.Judge()
}

func TestJudge(t *testing.T) {
	t.Parallel()
	signed := func(atLeast int, by ...string) policy.Rule {
		return policy.Rule{Signed: []policy.Signed{{By: by, AtLeast: atLeast}}}
	}
	attested := policy.Rule{Attested: []policy.Attested{{
		PredicateType: provenance, By: []string{"ci"}, Where: []policy.Condition{{Path: "/builder", Equals: "ours"}},
	}}}
	both := policy.Rule{Signed: signed(1, "release").Signed, Attested: attested.Attested}
	nested := verdict.Manifest{Digest: amd64, Above: []digest.Digest{inner, index}}
	first, second := verdict.Manifest{Digest: amd64, Above: []digest.Digest{index}}, verdict.Manifest{Digest: arm64, Above: []digest.Digest{index}}
	statement := digest.FromString("BuildKit's attestation manifest")
	on := func(subject digest.Digest, proofs ...verdict.Proof) piece {
		return piece{subject: subject, proofs: proofs}
	}
	for _, tc := range []struct {
		name      string
		rule      policy.Rule
		pieces    []piece
		manifests []verdict.Manifest
		want      verdict.Result
	}{
		{"signed", signed(1, "release"), []piece{on(amd64, by("release", "a"))}, []verdict.Manifest{first}, verdict.Verified},
		{"signed above", signed(1, "release"), []piece{on(index, by("release", "a"))}, []verdict.Manifest{first, second}, verdict.Verified},
		{"signed two indexes above", signed(1, "release"), []piece{on(index, by("release", "a"))}, []verdict.Manifest{nested}, verdict.Verified},
		{"nothing", signed(1, "release"), nil, []verdict.Manifest{first}, verdict.Refused},
		{"no manifest", signed(1, "release"), []piece{on(index, by("release", "a"))}, nil, verdict.Refused},
		{"one platform of two", signed(1, "release"), []piece{on(amd64, by("release", "a"))}, []verdict.Manifest{first, second}, verdict.Refused},
		{"both platforms", signed(1, "release"), []piece{on(amd64, by("release", "a")), on(arm64, by("release", "a"))}, []verdict.Manifest{first, second}, verdict.Verified},
		{"an index that does not lead to it", signed(1, "release"), []piece{on(inner, by("release", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"another image's", signed(1, "release"), []piece{on(other, by("release", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"by another trust", signed(1, "release"), []piece{on(amd64, by("ci", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"not valid", signed(1, "release"), []piece{on(amd64, verdict.Proof{Trust: "release", Why: "by another key"})}, []verdict.Manifest{first}, verdict.Refused},
		{"by any of two", signed(1, "release", "ci"), []piece{on(amd64, verdict.Proof{Trust: "release", Why: "no"}, by("ci", "a"))}, []verdict.Manifest{first}, verdict.Verified},

		{"two of two", signed(2, "release"), []piece{on(amd64, by("release", "a")), on(amd64, by("release", "b"))}, []verdict.Manifest{first}, verdict.Verified},
		{"two of two, one above", signed(2, "release"), []piece{on(amd64, by("release", "a")), on(index, by("release", "b"))}, []verdict.Manifest{first}, verdict.Verified},
		{"one of two twice", signed(2, "release"), []piece{on(amd64, by("release", "a")), on(index, by("release", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"one identity by two trusts", signed(2, "release", "ci"), []piece{on(amd64, by("release", "a"), by("ci", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"two identities by two trusts", signed(2, "release", "ci"), []piece{on(amd64, by("release", "a")), on(amd64, by("ci", "b"))}, []verdict.Manifest{first}, verdict.Verified},
		{"two on different platforms", signed(2, "release"), []piece{on(amd64, by("release", "a")), on(arm64, by("release", "b"))}, []verdict.Manifest{first, second}, verdict.Refused},

		{"attested", attested, []piece{on(amd64, attests("ci", "a", provenance, `{"builder":"ours"}`))}, []verdict.Manifest{first}, verdict.Verified},
		{"attested of another type", attested, []piece{on(amd64, attests("ci", "a", "https://spdx.dev/Document", `{"builder":"ours"}`))}, []verdict.Manifest{first}, verdict.Refused},
		{"attested otherwise", attested, []piece{on(amd64, attests("ci", "a", provenance, `{"builder":"theirs"}`))}, []verdict.Manifest{first}, verdict.Refused},
		{"attested by another", attested, []piece{on(amd64, attests("release", "a", provenance, `{"builder":"ours"}`))}, []verdict.Manifest{first}, verdict.Refused},
		{"a signature is no attestation", attested, []piece{on(amd64, by("ci", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"an attestation is no signature", signed(1, "ci"), []piece{on(amd64, attests("ci", "a", provenance, `{}`))}, []verdict.Manifest{first}, verdict.Refused},
		{"one entry of two", both, []piece{on(amd64, by("release", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"both entries", both, []piece{on(amd64, by("release", "a")), on(index, attests("ci", "b", provenance, `{"builder":"ours"}`))}, []verdict.Manifest{first}, verdict.Verified},

		{"an unsigned statement", attested, []piece{{subject: amd64, unsigned: `{"builder":"ours"}`, in: statement}}, []verdict.Manifest{first}, verdict.Refused},
		{"an unsigned statement that is vouched for", attested, []piece{{subject: amd64, unsigned: `{"builder":"ours"}`, in: statement}, on(statement, by("ci", "a"))}, []verdict.Manifest{first}, verdict.Verified},
		{"vouched for by another", attested, []piece{{subject: amd64, unsigned: `{"builder":"ours"}`, in: statement}, on(statement, by("release", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"another is vouched for", attested, []piece{{subject: amd64, unsigned: `{"builder":"ours"}`, in: statement}, on(other, by("ci", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"vouched for and otherwise", attested, []piece{{subject: amd64, unsigned: `{"builder":"theirs"}`, in: statement}, on(statement, by("ci", "a"))}, []verdict.Manifest{first}, verdict.Refused},
		{"attested instead of vouched for", attested, []piece{{subject: amd64, unsigned: `{"builder":"ours"}`, in: statement}, on(statement, attests("ci", "a", provenance, `{}`))}, []verdict.Manifest{first}, verdict.Refused},
		{"the image's signature vouches for nothing", attested, []piece{{subject: amd64, unsigned: `{"builder":"ours"}`, in: statement}, on(amd64, by("ci", "a"))}, []verdict.Manifest{first}, verdict.Refused},

		{"denied", policy.Rule{Deny: true}, []piece{on(amd64, by("release", "a"))}, []verdict.Manifest{first}, verdict.Refused},
	} {
		v := judged(selection(t, tc.rule), tc.pieces, tc.manifests...)
		if v.Result != tc.want {
			t.Errorf("%s: %s, want %s: %s", tc.name, v.Result, tc.want, v.Reason)
		}
		if (v.Reason != "") != (v.Result == verdict.Refused) {
			t.Errorf("%s: %s for the reason %q", tc.name, v.Result, v.Reason)
		}
	}
}

// A name that is signed counts only where the rule asks for it, and must be the repository's.
func TestSignedRepository(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		asks  bool
		names []string
		want  verdict.Result
	}{
		"no name, not asked for":       {false, nil, verdict.Verified},
		"another name, not asked for":  {false, []string{"registry.example.com/other"}, verdict.Verified},
		"no name":                      {true, nil, verdict.Refused},
		"another name":                 {true, []string{"registry.example.com/other"}, verdict.Refused},
		"the name":                     {true, []string{repository}, verdict.Verified},
		"the name with a tag":          {true, []string{repository + ":v1"}, verdict.Verified},
		"the name with a digest":       {true, []string{repository + "@" + amd64.String()}, verdict.Verified},
		"the name spelt otherwise":     {true, []string{"Registry.Example.COM:443/prod/app"}, verdict.Verified},
		"the name among others":        {true, []string{"registry.example.com/other", repository}, verdict.Verified},
		"a name that it is part of":    {true, []string{repository + "/more"}, verdict.Refused},
		"a name that ends like it":     {true, []string{"evil.example.com/" + repository}, verdict.Refused},
		"an empty name":                {true, []string{""}, verdict.Refused},
		"another registry by its port": {true, []string{"registry.example.com:5000/prod/app"}, verdict.Refused},
	} {
		s := selection(t, policy.Rule{Signed: []policy.Signed{{By: []string{"release"}, SignedRepository: tc.asks}}})
		p := by("release", "a")
		p.Verified.Names = tc.names
		if v := judged(s, []piece{{subject: amd64, proofs: []verdict.Proof{p}}}, verdict.Manifest{Digest: amd64}); v.Result != tc.want {
			t.Errorf("%s: %s, want %s: %s", name, v.Result, tc.want, v.Reason)
		}
	}
}

// Every piece of evidence has a reason, whether it counts or not.
func TestEveryPieceHasAReason(t *testing.T) {
	t.Parallel()
	s := selection(t, policy.Rule{
		Signed:   []policy.Signed{{By: []string{"release"}}},
		Attested: []policy.Attested{{PredicateType: provenance, By: []string{"ci"}}},
	})
	statement := digest.FromString("statement")
	pieces := []piece{
		{subject: amd64, proofs: []verdict.Proof{by("release", "a")}},
		{subject: amd64, proofs: []verdict.Proof{by("ci", "b")}},
		{subject: amd64, proofs: []verdict.Proof{attests("release", "c", provenance, "{}")}},
		{subject: amd64, proofs: []verdict.Proof{attests("ci", "d", "https://example.com/other", "{}")}},
		{subject: amd64, proofs: []verdict.Proof{{Trust: "release", Why: "it is signed by another key"}}},
		{subject: amd64, unsigned: "{}", in: statement},
		{subject: statement, proofs: []verdict.Proof{by("ci", "e")}},
	}
	v := judged(s, pieces, verdict.Manifest{Digest: amd64})
	counted := 0
	for _, e := range v.Evidence {
		if len(e.Reasons) == 0 {
			t.Errorf("%+v has no reason", e)
		}
		if e.Counted {
			counted++
		}
	}
	if counted != 2 || v.Result != verdict.Verified {
		t.Errorf("%d pieces count, want 2: %+v", counted, v.Evidence)
	}
}

// The reason is one line that names the rule, what it needs, what was found and the remedy,
// within what an event of Kubernetes takes.
func TestReason(t *testing.T) {
	t.Parallel()
	rule := policy.Rule{Signed: []policy.Signed{{By: []string{"release", "ci"}, AtLeast: 2}}}
	long := strings.Repeat("an identity from the network ", 50)
	for name, tc := range map[string]struct {
		status labels.Status
		cut    string
		pieces []piece
		says   []string
	}{
		"nothing": {labels.Absent, "", nil, []string{"needs 2 signatures by release or ci of manifest " + verdict.Short(amd64) + " (linux/amd64), and none counts: nothing of the kind refers to it. Have it signed"}},
		"unknown": {labels.Unknown, "", nil, []string{"is not known (503", "See to the registry"}},
		"cut":     {labels.Truncated, "", nil, []string{"a limit cut what refers to"}},
		"too much evidence": {labels.Present, "the image has more than 1024 pieces of evidence", nil,
			[]string{"more than 1024 pieces"}},
		"one": {labels.Present, "", []piece{{subject: amd64, proofs: []verdict.Proof{by("release", "key a")}}}, []string{"and 1 counts, by key a"}},
		"strangers": {labels.Present, "", slices.Repeat([]piece{{subject: amd64, proofs: []verdict.Proof{{Trust: "release", Why: long}}}}, 9),
			[]string{"does not (trust release: an identity", "nor do 7 more", "mend the rule's trust"}},
	} {
		s := selection(t, rule)
		c := verdict.Case{Image: repository + ":v1", Selection: s, Cut: tc.cut,
			Status:    func(digest.Digest) (labels.Status, string) { return tc.status, "503 of registry.example.com" },
			Manifests: []verdict.Manifest{{Digest: amd64, Platform: "linux/amd64"}}}
		for _, p := range tc.pieces {
			c.Pieces = append(c.Pieces, verdict.Piece{Subject: p.subject, Format: evidence.Bundle, Weight: verdict.Weigh(s.Requirements(), repository, p.proofs)})
		}
		reason := c.Judge().Reason
		for _, want := range append(tc.says, "image "+repository+":v1 is refused: rule 1", "ctr referrers explain") {
			if !strings.Contains(reason, want) {
				t.Errorf("%s: %q lacks %q", name, reason, want)
			}
		}
		if len(verdict.Prefix)+len(reason) > 900 || strings.ContainsAny(reason, "\n\r") {
			t.Errorf("%s: the reason has %d bytes: %q", name, len(reason), reason)
		}
	}
}

// Statements that nobody vouches for are counted once each.
func TestJudgeOfMasses(t *testing.T) {
	t.Parallel()
	s := selection(t, policy.Rule{Attested: []policy.Attested{{PredicateType: provenance, By: []string{"ci"}}}})
	var pieces []piece
	for i := range 500 {
		in := digest.FromString(fmt.Sprint("statement ", i))
		pieces = append(pieces, piece{subject: amd64, unsigned: "{}", in: in}, piece{subject: in, proofs: []verdict.Proof{{Trust: "ci", Why: "no"}}})
	}
	if v := judged(s, pieces, verdict.Manifest{Digest: amd64}); v.Result != verdict.Refused || len(v.Evidence) != 1000 {
		t.Errorf("%s with %d pieces", v.Result, len(v.Evidence))
	}
}

// Lists are there even where they are empty, for who reads the JSON.
func TestVerdictJSON(t *testing.T) {
	t.Parallel()
	v := judged(selection(t, policy.Rule{Signed: []policy.Signed{{By: []string{"release"}}}}), nil, verdict.Manifest{Digest: amd64})
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); strings.Contains(text, "null") || !strings.Contains(text, `"result":"refused","mode":"enforce"`) || !strings.Contains(text, `"identities":[]`) || !strings.Contains(text, `"evidence":[]`) {
		t.Errorf("%s", data)
	}
}

// A refusal names first what lacks least: an attestation by the right key with another builder
// before signatures of strangers, whatever their digests.
func TestReasonNamesFirstWhatNearlyCounts(t *testing.T) {
	t.Parallel()
	s := selection(t, policy.Rule{Attested: []policy.Attested{{
		PredicateType: provenance, By: []string{"ci"}, Where: []policy.Condition{{Path: "/builder", Equals: "ours"}},
	}}})
	stranger := piece{subject: amd64, proofs: []verdict.Proof{{Trust: "ci", Why: "another key signed it"}}}
	near := piece{subject: amd64, proofs: []verdict.Proof{attests("ci", "key a", provenance, `{"builder":"theirs"}`)}}
	for i := range 5 {
		pieces := slices.Insert(slices.Repeat([]piece{stranger}, 4), i%5, near)
		reason := judged(s, pieces, verdict.Manifest{Digest: amd64}).Reason
		at, other := strings.Index(reason, `"/builder" of its predicate is "theirs", want equals "ours"`), strings.Index(reason, "another key signed it")
		if at < 0 || other < at {
			t.Errorf("in place %d: %q", i, reason)
		}
	}
}

// A refusal names the command that tells more without a registry where the image is stored, and
// what a pull cannot mend there.
func TestReasonOfAStoredImage(t *testing.T) {
	t.Parallel()
	s := selection(t, policy.Rule{Signed: []policy.Signed{{By: []string{"release"}}}})
	for stored, want := range map[bool]string{
		true:  "Have it signed, and fetch its referrers; every reason: ctr referrers verify " + repository + ":v1",
		false: "Have it signed, and pull again; every reason: ctr referrers explain " + repository + ":v1",
	} {
		c := verdict.Case{Image: repository + ":v1", Selection: s, Stored: stored, Manifests: []verdict.Manifest{{Digest: amd64}}}
		if reason := c.Judge().Reason; !strings.HasSuffix(reason, want) {
			t.Errorf("stored: %v: %q, want it to end with %q", stored, reason, want)
		}
	}
}
