package policy

import (
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
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
		// Both sides are compared as Select compares them.
		name, normal := normalizeRepository(name), normalizeRepository(pattern)
		if got, want := g.match(name), globMatches(normal, name, func(c byte) bool { return c != '/' }); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
		if !strings.Contains(pattern, "*") && !g.match(normal) {
			t.Errorf("%q does not match itself", pattern)
		}
	})
}

func FuzzTypePattern(f *testing.F) {
	for _, seed := range [][3]string{
		{"signatures", bundleV03, "https://sigstore.dev/cosign/sign/v1"},
		{"!attestations", bundleV03, ""},
		{"application/vnd.example.*", "Application/vnd.Example.a; b=c", ""},
		{"application/spdx+json;version=2", "application/spdx+json", ""},
		{"**a*", "a/b", ""},
		{"vex", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, pattern, mime, predicateType string) {
		p, err := parseType(pattern)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), strconv.Quote(pattern)) {
				t.Errorf("error %q of pattern %q", err, pattern)
			}
			return
		}
		r := Referrer{ArtifactType: mime, Annotations: predicate(predicateType)}
		match, sure := p.matches(r)
		if p.re != nil {
			body := strings.ToLower(strings.TrimPrefix(pattern, "!"))
			if want := globMatches(body, normalize(mime), func(byte) bool { return true }); match != want {
				t.Errorf("%q matches %q: %v, want %v", pattern, mime, match, want)
			}
		}
		for _, same := range []string{mime + ";q=1", " " + mime, asciiUpper(mime)} {
			if m, s := p.matches(Referrer{same, r.Annotations}); m != match || s != sure {
				t.Errorf("%q tells %q from %q", pattern, mime, same)
			}
		}
		decide(t, strings.TrimPrefix(pattern, "!"), r, match, sure)
	})
}

// decide checks what must hold between the verdicts on one referrer.
func decide(t *testing.T, take string, r Referrer, match, sure bool) {
	t.Helper()
	for _, tc := range []struct {
		types []string
		want  Verdict
	}{
		{[]string{take}, verdictIf(match)},
		{[]string{take, "!" + take}, verdictIf(match && !sure)},
		{[]string{"!" + take, take}, verdictIf(match && !sure)},
		{[]string{"!" + take, SetAll}, verdictIf(!match || !sure)},
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
	if missing := len(s.Missing([]Referrer{r})) > 0; missing == (match && sure) {
		t.Errorf("required %q, found %q: missing %v", take, r.ArtifactType, missing)
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
