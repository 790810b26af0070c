package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

// nextPage returns the address of the page after the one that came from base, nil where
// that was the last (RFC 8288; OCI distribution-spec, "Listing Referrers"). A link to
// another host or scheme is refused: it would be followed with this host's
// credentials.
func nextPage(header http.Header, base *url.URL) (*url.URL, error) {
	target, unreadable := "", false
	for _, value := range header.Values("Link") {
		t, ok, readable := nextLink(value)
		if unreadable = unreadable || !readable; ok {
			target = t
			break
		}
	}
	switch {
	case target == "" && unreadable:
		// It may have been the link: the page may not be the last.
		return nil, fmt.Errorf("the Link header cannot be read: %w", errdefs.ErrInvalidArgument)
	case target == "":
		return nil, nil
	}
	ref, err := url.Parse(strings.TrimSpace(target))
	if err != nil {
		return nil, fmt.Errorf("link to the next page cannot be read: %w", errdefs.ErrInvalidArgument)
	}
	u := base.ResolveReference(ref)
	u.Fragment = ""
	if !sameOrigin(u, base) || u.User != nil {
		return nil, fmt.Errorf("link to the next page leads to %s://%s, away from %s://%s: %w", u.Scheme, u.Host, base.Scheme, base.Host, errdefs.ErrPermissionDenied)
	}
	return u, nil
}

// nextLink returns the target of the first link in the header value whose
// relation types include "next". Targets stand in angle brackets; commas and
// semicolons within them, or within quoted parameters, separate nothing. readable is
// false for a value that is no list of links.
//
// A header may have mebibytes: no part of it is looked at twice.
func nextLink(value string) (target string, ok, readable bool) {
	readable = true
	for value = strings.Trim(value, " \t,"); value != ""; value = strings.TrimLeft(value, " \t,") {
		if value[0] != '<' {
			readable = false
			_, value = cutUnquoted(value, ',')
			continue
		}
		end := strings.IndexByte(value, '>')
		if end < 0 {
			return "", false, false // nor does another target end in what follows
		}
		target = value[1:end]
		var params string
		params, value = cutUnquoted(value[end+1:], ',')
		if hasNext(params) {
			return target, target != "", target != ""
		}
	}
	return "", false, readable
}

func hasNext(params string) bool {
	for params != "" {
		var param string
		param, params = cutUnquoted(params, ';')
		key, val, _ := strings.Cut(param, "=")
		if !strings.EqualFold(strings.TrimSpace(key), "rel") {
			continue
		}
		for rel := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(val), `"'`)) {
			if strings.EqualFold(rel, "next") {
				return true
			}
		}
		return false // of several, the first counts (RFC 8288, section 3.3)
	}
	return false
}

// cutUnquoted cuts s at the first sep that stands outside quotes.
func cutUnquoted(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
