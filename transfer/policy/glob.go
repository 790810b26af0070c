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
	registry, path, _ := strings.Cut(pattern, "/")
	if strings.Contains(path, ":") {
		return fail("has a tag", "rules match repositories, without tag or digest")
	}
	if registry == pattern && !strings.Contains(pattern, "**") || !isRegistry(registry) {
		return fail("has no registry, and so matches no repository", `write it in full, "docker.io/library/alpine"; a registry without a domain has its port, "registry:443/app"`)
	}
	if what, remedy := unmatchable(registry, path); what != "" {
		return fail(what, remedy)
	}
	return glob{
		text: pattern,
		re:   compileGlob(normalizeRepository(pattern), `[^/]*`),
		raw:  compileGlob(strings.ToLower(pattern), `[^/]*`),
	}, nil
}

// unmatchable finds what keeps a pattern from matching any repository at all, which
// a slip of the pen does in silence, and what to write instead; "" where nothing does.
// A star may stand for a letter wherever it may stand for anything else, so that the
// pattern matches a name exactly where it is one with "0" for its stars.
func unmatchable(registry, path string) (what, remedy string) {
	host, port, ok := cutPort(registry)
	if digits := strings.ReplaceAll(port, "*", ""); ok && digits != "" {
		if n, err := strconv.ParseUint(digits, 10, 16); err != nil || n == 0 {
			return fmt.Sprintf("has a port %q that no registry has", port), `write its number, "registry.example.com:5000/app", or "*" for any`
		}
	}
	switch {
	case strings.ContainsAny(host, "[]"):
		if !ipv6Glob.MatchString(host) {
			return "has brackets that hold no IPv6 address", `the wildcards are "*" (within one component) and "**" (across slashes); an address is written "[::1]:5000/app"`
		}
	case !hostName.MatchString(withoutStars(host)):
		return fmt.Sprintf("has a registry %q that no host is named", host), "write it as references do: registry.example.com/prod/**"
	}
	if path == "" {
		return "", ""
	}
	for component := range strings.SplitSeq(path, "/") {
		switch {
		case strings.ContainsAny(component, "[]"):
			return "has a character that no repository name has", `the wildcards are "*" (within one component) and "**" (across slashes)`
		case !pathComponent.MatchString(withoutStars(component)):
			return fmt.Sprintf("has a component %q that no repository name has", component), `write letters and digits, joined by one of ".", "_", "__" and "-"`
		}
	}
	return "", ""
}

func withoutStars(pattern string) string { return stars.ReplaceAllLiteralString(pattern, "0") }

var (
	stars = regexp.MustCompile(`\*+`)
	// ipv6Glob is an address of digits, colons and stars; what is wrong with its
	// digits is not looked for.
	ipv6Glob = regexp.MustCompile(`^\[[0-9a-fA-F:.*]*[:*][0-9a-fA-F:.*]*\]$`)
	// hostName is a name in DNS, with underscores, which registries of test beds
	// have, and with or without the dot of a fully qualified one.
	hostName = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*\.?$`)
	// pathComponent is the OCI distribution-spec's, "Pulling manifests": <name>; in
	// any case, since patterns are compared in lower.
	pathComponent = regexp.MustCompile(`^[a-zA-Z0-9]+((\.|_|__|-+)[a-zA-Z0-9]+)*$`)
)

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
