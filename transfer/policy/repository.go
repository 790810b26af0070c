package policy

import (
	"net/netip"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// isRegistry reports whether the first component of a pattern can be a registry, by the
// rule that tells "registry.example.com/app" from "library/alpine" wherever short names
// are allowed.
func isRegistry(component string) bool {
	return strings.ContainsAny(component, ".:*") || component == "localhost"
}

// normalizeRepository gives a repository one name, so that a rule is not missed for how
// a reference is spelt. A registry's host is the same in any case, with a default port or
// without, as a fully qualified name, in Unicode or in Punycode; an address has several
// forms, and a port leading zeros or none; servers lead from a path with empty or dot
// segments to the one without; and Docker Hub has several names, and official images
// below "library".
func normalizeRepository(name string) string {
	registry, repository, ok := strings.Cut(strings.ToLower(name), "/")
	if !ok {
		return registry
	}
	repository = path.Clean("/" + repository)[1:]
	host, port, _ := cutPort(registry)
	switch n, err := strconv.ParseUint(port, 10, 16); {
	case port == "" || err == nil && (n == 443 || n == 80):
		port = ""
	case err == nil:
		port = ":" + strconv.FormatUint(n, 10)
	default: // a pattern's star
		port = ":" + port
	}
	switch host = normalizeHost(host); host {
	case "registry-1.docker.io", "index.docker.io", "www.docker.io", "registry.hub.docker.com":
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(repository, "/") && !strings.Contains(repository, "**") {
		repository = "library/" + repository
	}
	return host + port + "/" + repository
}

// cutPort cuts a registry around the colon before its port, which no colon of an IPv6
// address is.
func cutPort(registry string) (host, port string, ok bool) {
	if i := strings.LastIndexByte(registry, ':'); i > strings.LastIndexByte(registry, ']') {
		return registry[:i], registry[i+1:], true
	}
	return registry, "", false
}

// normalizeHost does with a host what net/http does before it connects.
func normalizeHost(host string) string {
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if addr = addr.Unmap(); addr.Is6() {
			return "[" + addr.String() + "]"
		}
		return addr.String()
	}
	if ascii, err := idna.Lookup.ToASCII(host); err == nil && strings.ContainsFunc(host, func(c rune) bool { return c >= utf8.RuneSelf }) {
		host = ascii
	}
	return strings.TrimSuffix(host, ".")
}

// NormalizeRepository returns the one name that a repository has here, however a reference
// spells it.
func NormalizeRepository(name string) string { return normalizeRepository(name) }

// SameRepository reports whether a name that somebody signed is that of the repository: with
// or without a tag or a digest, and however the registry is spelt.
func SameRepository(signed, repository string) bool {
	signed, _, _ = strings.Cut(signed, "@")
	if slash, colon := strings.LastIndexByte(signed, '/'), strings.LastIndexByte(signed, ':'); colon > slash && slash >= 0 {
		signed = signed[:colon]
	}
	return signed != "" && normalizeRepository(signed) == normalizeRepository(repository)
}
