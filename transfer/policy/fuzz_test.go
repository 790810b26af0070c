package policy

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// globMatches says by dynamic programming, without any regular expression, what
// a glob must match: "**" is anything, "*" what star allows.
func globMatches(pattern, s string, star func(byte) bool) bool {
	reached := make([]bool, len(s)+1) // the ends of what the pattern so far matches
	reached[0] = true
	for pattern != "" {
		next := make([]bool, len(s)+1)
		many := pattern[0] == '*'
		allows := star
		if strings.HasPrefix(pattern, "**") {
			pattern, allows = pattern[1:], func(byte) bool { return true }
		}
		for i := range next {
			switch {
			case many:
				next[i] = reached[i] || i > 0 && next[i-1] && allows(s[i-1])
			case i > 0:
				next[i] = reached[i-1] && s[i-1] == pattern[0]
			}
		}
		pattern, reached = pattern[1:], next
	}
	return reached[len(s)]
}

func FuzzRepositoryGlob(f *testing.F) {
	for _, seed := range [][2]string{
		{"**", "docker.io/library/alpine"},
		{"registry.example.com/prod/**", "registry.example.com/prod/team/app"},
		{"*/a*b/**c", "x/ab/c"},
		{"[::1]:5000/*", "[::1]:5000/app"},
		{"a/b:v1", "a/b"},
		{"***", ""},
		{"a.b/*", "a.b/\xff\n"},
		{"a.b:5*/c*.d/**", "a.b:50/c.d/e"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		g, err := repositoryGlob(pattern)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), strconv.Quote(pattern)) {
				t.Errorf("error %q of pattern %q", err, pattern)
			}
			return
		}
		component := func(c byte) bool { return c != '/' }
		normalName, normal := normalizeRepository(name), normalizeRepository(pattern)
		want := globMatches(normal, normalName, component) || globMatches(strings.ToLower(pattern), strings.ToLower(name), component)
		if got := g.matchSpelt(name); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
		if again := normalizeRepository(normalName); again != normalName && isRepository(name) {
			t.Errorf("%q has the normal forms %q and %q", name, normalName, again)
		}
		// Another spelling of the registry escapes no rule for it.
		if registry, path, ok := strings.Cut(normalName, "/"); ok && g.match(normalName) && isRepository(name) && !strings.Contains(registry, ":") {
			for _, spelt := range []string{strings.ToUpper(registry), registry + ":443", registry + ":00443", registry + ":", registry + ".", registry + "/"} {
				if !g.matchSpelt(spelt + "/" + path) {
					t.Errorf("%q escapes %q, which matches %q", spelt+"/"+path, pattern, normalName)
				}
			}
		}
		// A pattern that is accepted is one that can match.
		if spelt := withoutStars(pattern); !g.matchSpelt(spelt) {
			t.Errorf("%q does not match %q", pattern, spelt)
		}
	})
}

// isRepository says whether a reference may name it (OCI distribution-spec, "Pulling
// manifests": <name>); more is not promised about other texts.
func isRepository(name string) bool { return repositoryName.MatchString(name) }

var repositoryName = regexp.MustCompile(`^[a-z0-9]+(\.[a-z0-9]+)*(:[0-9]*)?(/[a-z0-9]+([._-][a-z0-9]+)*)+$`)

func FuzzTypePattern(f *testing.F) {
	for _, seed := range [][4]string{
		{"signatures", artifact.TypeBundle, "https://sigstore.dev/cosign/sign/v1", ""},
		{"!attestations", artifact.TypeBundle, "", ""},
		{"signatures", artifact.TypeBundle, "", "message-signature"},
		{"application/vnd.example.*", "Application/vnd.Example.a; b=c", "", ""},
		{"application/spdx+json;version=2", "application/spdx+json", "", ""},
		{"**a*", "a/b", "", ""},
		{"vex", "", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, pattern, mime, predicateType, bundled string) {
		p, err := parseType(pattern)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), strconv.Quote(pattern)) {
				t.Errorf("error %q of pattern %q", err, pattern)
			}
			return
		}
		r := artifact.Referrer{ArtifactType: mime, Annotations: predicate(predicateType)}
		r.Annotations[artifact.Annotations[1]] = bundled
		var matches []bool // a reading each
		for _, as := range artifact.Readings(r) {
			matches = append(matches, p.matches(as))
		}
		if p.re != nil {
			body := strings.ToLower(strings.TrimPrefix(pattern, "!"))
			if want := globMatches(body, artifact.NormalizeType(mime), func(byte) bool { return true }); matches[0] != want {
				t.Errorf("%q matches %q: %v, want %v", pattern, mime, matches[0], want)
			}
		}
		for _, same := range []string{mime + ";q=1", " " + mime, asciiUpper(mime)} {
			if artifact.SetOf(artifact.Referrer{ArtifactType: same, Annotations: r.Annotations}) != artifact.SetOf(r) {
				t.Errorf("the set of %q is not that of %q", same, mime)
			}
		}
		take := strings.TrimPrefix(pattern, "!")
		decide(t, take, r, slices.Contains(matches, true), !slices.Contains(matches, false))
		for _, set := range setNames {
			denied(t, take, set, r)
		}
	})
}

// decide checks what must hold between the verdicts on one referrer, some or all of
// whose readings match.
func decide(t *testing.T, take string, r artifact.Referrer, some, all bool) {
	t.Helper()
	for _, tc := range []struct {
		types []string
		want  Verdict
	}{
		{[]string{take}, verdictIf(some)},
		{[]string{take, "!" + take}, Skip},
		{[]string{"!" + take, take}, Skip},
		{[]string{"!" + take, SetAll}, verdictIf(!all)},
	} {
		s := mustSelect(t, []Rule{{Repositories: []string{"**"}, ArtifactTypes: tc.types}}, "a.test/app")
		final := s.DecideManifest(r)
		if final.Verdict != tc.want {
			t.Errorf("types %q, %q: %v, want %v", tc.types, r.ArtifactType, final, tc.want)
		}
		if listed := s.Decide(r); listed.Verdict != Ask && listed.Verdict != final.Verdict {
			t.Errorf("types %q, %q: the listing says %v, the manifest %v", tc.types, r.ArtifactType, listed, final)
		}
	}
	s := mustSelect(t, []Rule{{Repositories: []string{"**"}, Required: []string{take}}}, "a.test/app")
	if missing := len(s.Missing([]artifact.Referrer{r})) > 0; missing == all {
		t.Errorf("required %q, found %q: missing %v", take, r.ArtifactType, missing)
	}
}

// denied checks that what a rule denies, in any reading, satisfies nothing that it
// requires, and that no client changes what is required.
func denied(t *testing.T, required, deny string, r artifact.Referrer) {
	t.Helper()
	rules := []Rule{{Repositories: []string{"**"}, ArtifactTypes: []string{"!" + deny}, Required: []string{required}}}
	if _, err := New(rules); errdefs.IsInvalidArgument(err) {
		return // what can never be there is not required
	}
	ours, clients := mustSelect(t, rules, "a.test/app"), mustSelect(t, rules, "a.test/app", SetAll)
	for _, as := range artifact.Readings(r) {
		if p, _ := parseType(deny); p.matches(as) && len(ours.Missing([]artifact.Referrer{r})) == 0 {
			t.Errorf("%q is denied by %q and satisfies %q", r.ArtifactType, deny, required)
		}
	}
	if a, b := ours.Missing([]artifact.Referrer{r}), clients.Missing([]artifact.Referrer{r}); !slices.Equal(a, b) {
		t.Errorf("missing %q, and with a client's selection %q", a, b)
	}
	if len(ours.Missing([]artifact.Referrer{r})) == 0 && (ours.DecideManifest(r).Verdict != Take || clients.DecideManifest(r).Verdict != Take) {
		t.Errorf("%q satisfies %q and is not taken", r.ArtifactType, required)
	}
}

func verdictIf(take bool) Verdict {
	if take {
		return Take
	}
	return Skip
}

func asciiUpper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}
