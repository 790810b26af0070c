package policy

import (
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestRepositoryGlob(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern string
		match   []string
		differ  []string
	}{
		{
			pattern: "**",
			match:   []string{"docker.io/library/alpine", "localhost:5000/a/b/c/d", "[::1]:5000/app"},
		}, {
			pattern: "registry.example.com/prod/**",
			match:   []string{"registry.example.com/prod/app", "registry.example.com/prod/team/app"},
			differ: []string{
				"registry.example.com/prod", "registry.example.com/production/app",
				"registryXexample.com/prod/app", // the dot is no wildcard
				"evil.test/registry.example.com/prod/app",
			},
		}, {
			pattern: "registry.example.com/*/app",
			match:   []string{"registry.example.com/prod/app"},
			differ:  []string{"registry.example.com/app", "registry.example.com/a/b/app", "registry.example.com/prod/app2"},
		}, {
			pattern: "*/library/al*e",
			match:   []string{"docker.io/library/alpine", "docker.io/library/ale"},
			differ:  []string{"a/b/library/alpine", "docker.io/library/al/pine"},
		}, {
			pattern: "**/app",
			match:   []string{"a/app", "a/b/app"},
			differ:  []string{"app", "a/myapp"},
		}, {
			pattern: "docker.io/library/alpine",
			match:   []string{"docker.io/library/alpine"},
			differ:  []string{"docker.io/library/alpine2", "xdocker.io/library/alpine", "docker.io/library/alpine\n"},
		}, {
			pattern: "localhost:5000/**",
			match:   []string{"localhost:5000/app"},
			differ:  []string{"localhost:5001/app", "localhost/app"},
		}, {
			pattern: "[::1]:5000/app", // an address, no character class
			match:   []string{"[::1]:5000/app"},
			differ:  []string{"1:5000/app", "::5000/app"},
		}, {
			pattern: "[fd00:*]/**",
			match:   []string{"[fd00::1]/app"},
			differ:  []string{"[fe80::1]/app"},
		}, {
			pattern: "registry_1:50*/a__b/c---*.d",
			match:   []string{"registry_1:5000/a__b/c---x.d", "registry_1:50/a__b/c---1.d"},
			differ:  []string{"registry_1:6000/a__b/c---x.d", "registry_1:5000/a_b/c---x.d"},
		}, {
			pattern: "*.example.com/team*.*/*_*",
			match:   []string{"registry.example.com/team.a/b_c", "a.b.example.com/team-1.x/y__z"},
			differ:  []string{"registry.example.com/team/b_c"},
		},
	} {
		t.Run(tc.pattern, func(t *testing.T) {
			t.Parallel()
			g, err := repositoryGlob(tc.pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range tc.match {
				if !g.match(name) {
					t.Errorf("does not match %q", name)
				}
			}
			for _, name := range tc.differ {
				if g.match(name) {
					t.Errorf("matches %q", name)
				}
			}
		})
	}
}

func TestRepositoryGlobRejects(t *testing.T) {
	t.Parallel()
	const wildcards = `the wildcards are "*" (within one component) and "**" (across slashes)`
	for _, tc := range []struct{ pattern, what, remedy string }{
		{"", "is empty", `or "**" for all`},
		{"https://registry.example.com/prod/**", "has a scheme", "leave it out"},
		{"registry.example.com/prod app", "character that no repository name has", wildcards},
		{"registry.example.com/{a,b}", "character that no repository name has", wildcards},
		{"registry.example.com/pro?", "character that no repository name has", wildcards},
		{"registry.example.com/app@sha256", "character that no repository name has", wildcards},
		{"registry.example.com/äpp", "character that no repository name has", wildcards},
		{"registry.example.com/app\n", "character that no repository name has", wildcards},
		{"registry.example.com/***", "three stars", `write "*" (within one component) or "**" (across slashes)`},
		{"registry.example.com/prod/", "empty path component", "write registry.example.com/prod/**"},
		{"/prod/**", "empty path component", "write registry.example.com/prod/**"},
		{"registry.example.com//app", "empty path component", "write registry.example.com/prod/**"},
		{"alpine", "has no registry", "docker.io/library/alpine"},
		{"alpine:3.19", "has no registry", "docker.io/library/alpine"},
		{"library/alpine", "has no registry", "docker.io/library/alpine"},
		{"myorg/**", "has no registry", "registry:443/app"},
		{"registry.example.com/app:v1", "has a tag", "without tag or digest"},
		{"localhost:5000/app:v*", "has a tag", "without tag or digest"},
		{"registry.example.com/[a-z]*", "character that no repository name has", wildcards},
		{"registry[12].example.com/**", "brackets that hold no IPv6 address", wildcards},
		{"[::1/app", "brackets that hold no IPv6 address", `"[::1]:5000/app"`},
		{"[a-z]*:5000/app", "brackets that hold no IPv6 address", wildcards},
		{"registry.example.com:port/**", `port "port" that no registry has`, "write its number"},
		{"registry.example.com:99999/**", `port "99999" that no registry has`, `or "*" for any`},
		{"registry.example.com:0/**", `port "0" that no registry has`, "write its number"},
		{"registry.example.com:50x*/**", `port "50x*" that no registry has`, "write its number"},
		{"::1/app", `registry ":" that no host is named`, "registry.example.com/prod/**"},
		{"registry..example.com/app", `registry "registry..example.com" that no host is named`, "as references do"},
		{"-registry.example.com/app", "that no host is named", "as references do"},
		{":5000/app", `registry "" that no host is named`, "as references do"},
		{"registry.example.com/prod/..", `component ".." that no repository name has`, "letters and digits"},
		{"registry.example.com/./app", `component "." that no repository name has`, "letters and digits"},
		{"registry.example.com/*..b", `component "*..b" that no repository name has`, "letters and digits"},
		{"registry.example.com/-app*", `component "-app*" that no repository name has`, "letters and digits"},
	} {
		t.Run(tc.pattern, func(t *testing.T) {
			t.Parallel()
			_, err := repositoryGlob(tc.pattern)
			wantInvalid(t, err, strconv.Quote(tc.pattern), tc.what, tc.remedy)
		})
	}
}

// wantInvalid fails unless the error is errdefs.ErrInvalidArgument and holds all
// the parts.
func wantInvalid(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("%q is no errdefs.ErrInvalidArgument", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}
