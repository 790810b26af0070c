package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

func mustSelect(t *testing.T, rules []Rule, repository string, client ...string) *Selection {
	t.Helper()
	p, err := New(rules)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select(repository, client)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNewRejects(t *testing.T) {
	t.Parallel()
	everywhere := []string{"**"}
	for _, tc := range []struct {
		name string
		rule Rule
		want []string
	}{
		{"no repositories", Rule{}, []string{"repositories: is missing", `name at least one, "**" for all`}},
		{"bad glob", Rule{Repositories: []string{"**", "a/b:v1"}}, []string{`repositories: "a/b:v1" has a tag`, "without tag or digest"}},
		{"unknown set", Rule{Repositories: everywhere, ArtifactTypes: []string{"vex"}},
			[]string{`artifact_types: "vex" is neither`, "signatures, attestations, sboms, all"}},
		{"unknown set denied", Rule{Repositories: everywhere, ArtifactTypes: []string{"all", "!vex"}}, []string{`artifact_types: "!vex"`, "sboms"}},
		{"unknown set required", Rule{Repositories: everywhere, Required: []string{"signature"}}, []string{`required: "signature" is neither`, "signatures,"}},
		{"denial required", Rule{Repositories: everywhere, Required: []string{artifact.SetSignatures, "!sboms"}},
			[]string{`required: "!sboms" is a denial`, "denials belong into artifact_types"}},
		{"required is denied", Rule{Repositories: everywhere, ArtifactTypes: []string{"!signatures"}, Required: []string{artifact.SetSignatures}},
			[]string{`required: "signatures" is denied by "!signatures" in artifact_types`, "remove one of the two"}},
		{"required, and all is denied", Rule{Repositories: everywhere, ArtifactTypes: []string{"!all"}, Required: []string{"text/spdx"}},
			[]string{`"text/spdx" is denied by "!all"`}},
		{"required, and all is denied by a glob", Rule{Repositories: everywhere, ArtifactTypes: []string{"!*"}, Required: []string{artifact.SetSignatures}},
			[]string{`"signatures" is denied by "!*"`}},
		{"required in another case than denied", Rule{Repositories: everywhere, ArtifactTypes: []string{"!Text/SPDX"}, Required: []string{"text/spdx;version=2"}},
			[]string{`"text/spdx;version=2" is denied by "!Text/SPDX"`}},
		{"a required type of a denied set", Rule{Repositories: everywhere, ArtifactTypes: []string{"!signatures"}, Required: []string{"application/vnd.cncf.notary.signature"}},
			[]string{`"application/vnd.cncf.notary.signature" is denied by "!signatures"`}},
		{"a required set, each of whose types is denied", Rule{Repositories: everywhere, ArtifactTypes: []string{"!text/*", "!application/*"}, Required: []string{artifact.SetSBOMs}},
			[]string{`"sboms" is denied by "!`}},
		{"a required bundle, both of whose readings are denied", Rule{Repositories: everywhere, ArtifactTypes: []string{"!signatures", "!attestations"}, Required: []string{artifact.TypeBundle}},
			[]string{`is denied by "!`}},
		{"a required glob that is denied", Rule{Repositories: everywhere, ArtifactTypes: []string{"!Application/vnd.example.*"}, Required: []string{"application/vnd.example.*"}},
			[]string{`"application/vnd.example.*" is denied by "!Application/vnd.example.*"`}},
		{"depth below", Rule{Repositories: everywhere, Depth: -1}, []string{"depth: -1 is out of range", "write 1 to 8"}},
		{"depth above", Rule{Repositories: everywhere, Depth: 9}, []string{"depth: 9 is out of range", "write 1 to 8"}},
		{"on_error", Rule{Repositories: everywhere, OnError: "ignore"}, []string{`on_error: "ignore" is not known`, `write "warn" or "fail"`}},
		{"on_error in capitals", Rule{Repositories: everywhere, OnError: "Fail"}, []string{`on_error: "Fail" is not known`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := New([]Rule{{Repositories: everywhere}, tc.rule})
			wantInvalid(t, err, append(tc.want, "rule 2: ")...)
		})
	}
}

func TestRuleDefaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule    Rule
		depth   int
		onError OnError
	}{
		{Rule{}, 2, Warn},
		{Rule{Depth: 1, OnError: Warn}, 1, Warn},
		{Rule{Depth: 8, OnError: Fail}, 8, Fail},
	} {
		tc.rule.Repositories = []string{"**"}
		s := mustSelect(t, []Rule{tc.rule}, "docker.io/library/alpine")
		if s.Depth() != tc.depth || s.OnError() != tc.onError {
			t.Errorf("depth %d, on_error %q; want %d, %q", s.Depth(), s.OnError(), tc.depth, tc.onError)
		}
		if !s.Empty() {
			t.Errorf("a rule that names no types takes some: %s", s)
		}
	}
}

func TestNoRules(t *testing.T) {
	t.Parallel()
	for _, rules := range [][]Rule{nil, {}} {
		s := mustSelect(t, rules, "docker.io/library/alpine")
		const want = `the built-in rule (no rules are configured): takes [signatures attestations], requires [], depth 2, on_error warn`
		if s.String() != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
		if s.Empty() || !s.Wants(artifact.TypeCosignSignature) || !s.Wants(artifact.TypeCosignAttestation) || s.Wants(artifact.TypeCosignSBOM) {
			t.Errorf("%s: wants the wrong types", s)
		}
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	rules := []Rule{
		{Repositories: []string{"a.test/prod/**", "b.test/prod/**"}, ArtifactTypes: []string{artifact.SetSignatures}, Required: []string{artifact.SetSignatures}, Depth: 1, OnError: Fail},
		{Repositories: []string{"*/prod/**"}, ArtifactTypes: []string{artifact.SetSBOMs}},
		{Repositories: []string{"a.test/**"}, ArtifactTypes: []string{SetAll}},
	}
	const (
		prod = "takes [signatures], requires [signatures], depth 1, on_error fail"
		none = "no rule matches the repository"
	)
	for _, tc := range []struct {
		name, repository string
		client           []string
		want             string
	}{
		{"first match wins", "a.test/prod/app", nil, `rule 1, repository "a.test/prod/**": ` + prod},
		{"second glob of the first rule", "b.test/prod/app", nil, `rule 1, repository "b.test/prod/**": ` + prod},
		{"second rule", "c.test/prod/app", nil, `rule 2, repository "*/prod/**": takes [sboms], requires [], depth 2, on_error warn`},
		{"third rule", "a.test/dev", nil, `rule 3, repository "a.test/**": takes [all], requires [], depth 2, on_error warn`},
		{"none", "c.test/dev", nil, none + ": takes [], requires [], depth 2, on_error warn"},
		{"none, the client's", "c.test/dev", []string{artifact.SetSBOMs}, none + ", artifact types of the client's selection: takes [sboms], requires [], depth 2, on_error warn"},
		{"the client's for the rule's", "a.test/prod/app", []string{"text/spdx", "!sboms"},
			`rule 1, repository "a.test/prod/**", artifact types of the client's selection: takes [text/spdx !sboms], requires [signatures], depth 1, on_error fail`},
		{"an empty client's leaves the rule's", "a.test/prod/app", []string{}, `rule 1, repository "a.test/prod/**": ` + prod},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := mustSelect(t, rules, tc.repository, tc.client...)
			if s.String() != tc.want {
				t.Errorf("got  %s\nwant %s", s, tc.want)
			}
			if origin, _, _ := strings.Cut(tc.want, ": takes"); s.RuleName() != origin {
				t.Errorf("origin %q, want %q", s.RuleName(), origin)
			}
		})
	}
}

// One policy serves every pull: what one client sends must not reach the next.
func TestSelectLeavesThePolicyAlone(t *testing.T) {
	t.Parallel()
	p, err := New([]Rule{{Repositories: []string{"**"}, ArtifactTypes: []string{artifact.SetSignatures}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, client := range [][]string{{artifact.SetSBOMs}, nil} {
		s, err := p.Select("a.test/app", client)
		if err != nil {
			t.Fatal(err)
		}
		if s.Wants("text/spdx") != (client != nil) {
			t.Errorf("client %q: %s", client, s)
		}
	}
}

func TestSelectRejectsTheClientsTypes(t *testing.T) {
	t.Parallel()
	p, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Select("a.test/app", []string{artifact.SetSBOMs, "vex"})
	wantInvalid(t, err, "selection: artifact_types", `"vex"`, "signatures, attestations, sboms, all")
}

func TestClientNeverLiftsRequired(t *testing.T) {
	t.Parallel()
	rules := []Rule{{Repositories: []string{"**"}, ArtifactTypes: []string{artifact.SetSignatures}, Required: []string{artifact.SetSignatures}}}
	for _, client := range [][]string{{artifact.SetSBOMs}, {"!all"}, {"!signatures"}} {
		s := mustSelect(t, rules, "a.test/app", client...)
		if s.Empty() {
			t.Errorf("client %q: the registry would not be asked", client)
		}
		if got := s.Missing(nil); !slices.Equal(got, []string{artifact.SetSignatures}) {
			t.Errorf("client %q: missing %q", client, got)
		}
	}
}

// However a reference spells its registry, the rule for that registry holds.
func TestRuleIsNotMissedForSpelling(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"registry.example.com/prod/**", "Registry.Example.com:443/prod/*"} {
		p, err := New([]Rule{{Repositories: []string{pattern}, Required: []string{artifact.SetSignatures}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, repository := range []string{
			"registry.example.com/prod/app", "REGISTRY.example.com/prod/app",
			"registry.example.com:443/prod/app", "registry.example.com./prod/app", "registry.example.com.:443/prod/app",
			"registry.example.com:/prod/app",     // an empty port is the default
			"\uff52egistry.example.com/prod/app", // what net/http maps to ASCII
			"registry\u3002example.com/prod/app", "regi\u00adstry.example.com/prod/app",
			"registry.example.com:00443/prod/app", "registry.example.com:0080/prod/app",
			"registry.example.com/prod//app", "registry.example.com/./prod/app", "registry.example.com//prod/app", "registry.example.com/dev/../prod/app/",
		} {
			s, err := p.Select(repository, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Required()) == 0 {
				t.Errorf("%s escapes the rule for %s", repository, pattern)
			}
		}
		if s, err := p.Select("registry.example.com:8443/prod/app", nil); err != nil || len(s.Required()) != 0 {
			t.Errorf("another port is taken for the same registry: %v, %v", s, err)
		}
	}
}

func TestRepositoriesWithSeveralNames(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ pattern, repository string }{
		{"docker.io/nginx", "docker.io/library/nginx"},
		{"docker.io/library/nginx", "docker.io/nginx"},
		{"index.docker.io/*", "docker.io/library/nginx"},
		{"[::1]:5000/**", "[0:0:0:0:0:0:0:1]:5000/app"},
		{"[0::1]/**", "[::1]:443/app"},
		{"[::1]/**", "[::1]:/app"},
		{"xn--bcher-kva.example/**", "b\u00fccher.example/app"},
		{"registry:443/**", "registry/app"},
		{"registry.example.com:5000/**", "registry.example.com:05000/app"},
		{"registry.example.com:05000/**", "registry.example.com:5000/app"},
		{"127.0.0.1:5000/**", "[::ffff:7f00:1]:5000/app"},
		{"[::ffff:127.0.0.1]:5000/**", "127.0.0.1:5000/app"},
	} {
		p, err := New([]Rule{{Repositories: []string{tc.pattern}, Required: []string{artifact.SetSignatures}}})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := p.Select(tc.repository, nil); err != nil || len(s.Required()) == 0 {
			t.Errorf("%s escapes the rule for %s", tc.repository, tc.pattern)
		}
	}
}

// What the rule requires is brought even where the client denies it.
func TestClientCannotDenyWhatIsRequired(t *testing.T) {
	t.Parallel()
	p, err := New([]Rule{{Repositories: []string{"**"}, Required: []string{artifact.SetSignatures}}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select("a.test/app", []string{SetAll, "!" + artifact.SetSignatures})
	if err != nil {
		t.Fatal(err)
	}
	if d := s.DecideManifest(artifact.Referrer{ArtifactType: artifact.TypeCosignSignature}); d.Verdict != Take {
		t.Errorf("a required signature is left: %+v", d)
	}
}

// What the operator denies satisfies no requirement, whatever the client selects.
func TestClientDoesNotLiftTheOperatorsDenial(t *testing.T) {
	t.Parallel()
	const notation = "application/vnd.cncf.notary.signature"
	p, err := New([]Rule{{Repositories: []string{"**"}, ArtifactTypes: []string{artifact.SetSignatures, "!" + notation}, Required: []string{artifact.SetSignatures}}})
	if err != nil {
		t.Fatal(err)
	}
	r := artifact.Referrer{ArtifactType: notation}
	for _, types := range [][]string{nil, {artifact.SetSBOMs}, {SetAll}} {
		s, err := p.Select("a.test/app", types)
		if err != nil {
			t.Fatal(err)
		}
		if missing := s.Missing([]artifact.Referrer{r}); len(missing) != 1 {
			t.Errorf("with %q a denied signature satisfies what is required", types)
		}
		// A client may take it, by naming it; what is required does not.
		if d, want := s.DecideManifest(r), len(types) > 0 && types[0] == SetAll; (d.Verdict == Take) != want {
			t.Errorf("with %q: %+v", types, d)
		}
	}
}

// A pattern may mean a spelling that the normal form has not.
func TestRuleMayNameASpelling(t *testing.T) {
	t.Parallel()
	for pattern, repository := range map[string]string{
		"registry.example.com:*/prod/**": "registry.example.com:443/prod/app",
		"*.docker.io/library/*":          "index.docker.io/library/alpine",
		"docker.io/**":                   "registry-1.docker.io/library/alpine",
		"registry.example.com/**":        "registry.example.com:0443/app",
	} {
		p, err := New([]Rule{{Repositories: []string{pattern}, Required: []string{artifact.SetSignatures}}})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := p.Select(repository, nil); err != nil || len(s.Required()) == 0 {
			t.Errorf("%s escapes the rule for %s", repository, pattern)
		}
	}
}
