package policy

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// glob is a compiled pattern. Its matcher is an RE2 expression, so that no
// pattern and no name make it slower than linear.
type glob struct {
	text string
	re   *regexp.Regexp
	raw  *regexp.Regexp // over names as they are spelt, but for their case
}

// match takes a normalized name.
func (g glob) match(s string) bool { return g.re.MatchString(s) }

// matchSpelt takes a name as a reference spells it: a pattern may mean just that
// spelling, "registry.example.com:*/**".
func (g glob) matchSpelt(s string) bool {
	return g.match(normalizeRepository(s)) || g.raw.MatchString(strings.ToLower(s))
}

// repositoryChars are those of a reference's registry and repository (OCI
// distribution-spec, "Pulling manifests": <name>; registries may carry a port
// and, as IPv6 addresses, brackets) and the glob's own.
var repositoryChars = regexp.MustCompile(`^[a-zA-Z0-9._\-:/*\[\]]+$`)

// repositoryGlob compiles a pattern over repository names: "*" stays within one
// path component, "**" crosses slashes.
func repositoryGlob(pattern string) (glob, error) {
	fail := func(what, remedy string) (glob, error) {
		return glob{}, fmt.Errorf("%s %s; %s: %w", strconv.Quote(pattern), what, remedy, errdefs.ErrInvalidArgument)
	}
	switch {
	case pattern == "":
		return fail("is empty", `write a repository such as "registry.example.com/prod/**", or "**" for all`)
	case strings.Contains(pattern, "://"):
		return fail("has a scheme", "leave it out: registry.example.com/prod/**")
	case !repositoryChars.MatchString(pattern):
		return fail("has a character that no repository name has", `the wildcards are "*" (within one component) and "**" (across slashes)`)
	case strings.Contains(pattern, "***"):
		return fail("has three stars in a row", `write "*" (within one component) or "**" (across slashes)`)
	case strings.HasPrefix(pattern, "/") || strings.HasSuffix(pattern, "/") || strings.Contains(pattern, "//"):
		return fail("has an empty path component", `write registry.example.com/prod/** for all below prod`)
	}
	if _, path, ok := strings.Cut(pattern, "/"); ok && strings.Contains(path, ":") {
		return fail("has a tag", "rules match repositories, without tag or digest")
	}
	if !strings.Contains(pattern, "/") && !strings.Contains(pattern, "**") {
		return fail("has no registry, and so matches no repository", `write it in full, "docker.io/library/alpine"`)
	}
	return glob{
		text: pattern,
		re:   compileGlob(normalizeRepository(pattern), `[^/]*`),
		raw:  compileGlob(strings.ToLower(pattern), `[^/]*`),
	}, nil
}

// normalizeRepository gives a repository one name: a registry's host is the same
// in any case, with a default port or without, and as a fully qualified name, and
// Docker Hub has several.
// A rule must not be missed for how a reference is spelt.
func normalizeRepository(name string) string {
	registry, path, ok := strings.Cut(strings.ToLower(name), "/")
	if !ok {
		return registry
	}
	if i := strings.LastIndexByte(registry, ':'); i >= 0 {
		if port, err := strconv.ParseUint(registry[i+1:], 10, 16); err == nil && (port == 443 || port == 80) {
			registry = registry[:i]
		}
	}
	registry = strings.TrimSuffix(registry, ".")
	switch registry {
	case "registry-1.docker.io", "index.docker.io", "www.docker.io":
		registry = "docker.io"
	}
	return registry + "/" + path
}

// compileGlob turns every "**" into "anything" and every "*" into star.
func compileGlob(pattern, star string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)^`)
	for pattern != "" {
		i := strings.IndexByte(pattern, '*')
		if i < 0 {
			i = len(pattern)
		}
		b.WriteString(regexp.QuoteMeta(pattern[:i]))
		pattern = pattern[i:]
		switch {
		case strings.HasPrefix(pattern, "**"):
			b.WriteString(`.*`)
			pattern = pattern[2:]
		case pattern != "":
			b.WriteString(star)
			pattern = pattern[1:]
		}
	}
	b.WriteString(`$`)
	return regexp.MustCompile(b.String())
}
