package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"golang.org/x/net/idna"
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
	if registry, _, _ := strings.Cut(pattern, "/"); registry == pattern && !strings.Contains(pattern, "**") || !isRegistry(registry) {
		return fail("has no registry, and so matches no repository", `write it in full, "docker.io/library/alpine"; a registry without a domain has its port, "registry:443/app"`)
	}
	return glob{
		text: pattern,
		re:   compileGlob(normalizeRepository(pattern), `[^/]*`),
		raw:  compileGlob(strings.ToLower(pattern), `[^/]*`),
	}, nil
}

// isRegistry says whether the first component of a pattern can be a registry, by the
// rule that tells "registry.example.com/app" from "library/alpine" wherever short names
// are allowed.
func isRegistry(component string) bool {
	return strings.ContainsAny(component, ".:*") || component == "localhost"
}

// normalizeRepository gives a repository one name, so that a rule is not missed for how
// a reference is spelt. A registry's host is the same in any case, with a default port or
// without, as a fully qualified name, in Unicode or in Punycode; an address has several
// forms; and Docker Hub has several names, and official images below "library".
func normalizeRepository(name string) string {
	registry, path, ok := strings.Cut(strings.ToLower(name), "/")
	if !ok {
		return registry
	}
	host, port := registry, ""
	if i := strings.LastIndexByte(registry, ':'); i > strings.LastIndexByte(registry, ']') {
		host, port = registry[:i], registry[i:]
		if n, err := strconv.ParseUint(port[1:], 10, 16); port == ":" || err == nil && (n == 443 || n == 80) {
			port = ""
		}
	}
	switch host = normalizeHost(host); host {
	case "registry-1.docker.io", "index.docker.io", "www.docker.io":
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(path, "/") && !strings.Contains(path, "**") {
		path = "library/" + path
	}
	return host + port + "/" + path
}

// normalizeHost does with a host what net/http does before it connects.
func normalizeHost(host string) string {
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if addr.Is6() {
			return "[" + addr.String() + "]"
		}
		return addr.String()
	}
	if ascii, err := idna.Lookup.ToASCII(host); err == nil && strings.ContainsFunc(host, func(c rune) bool { return c >= utf8.RuneSelf }) {
		host = ascii
	}
	return strings.TrimSuffix(host, ".")
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
