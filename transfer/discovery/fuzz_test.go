package discovery

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzNextPage holds what the parser of Link is for: wherever the header leads,
// the next request goes to the same host, with the same encryption and without
// credentials of the sender's choice.
func FuzzNextPage(f *testing.F) {
	for _, value := range []string{
		``, `,`, `<>`, `<`, `</a>; rel="next"`, `</a>; rel=next; title="x, y", <b>; REL="prev next"`,
		`<https://r.test:5000/v2/a?last=x>; rel="next"`, `<//evil.test>; rel=next`, `<https://u:p@r.test:5000/>; rel=next`,
		`<https:a>; rel=next`, `<http://r.test:5000/>; rel=next`, `</a>; title="\"; rel=next`,
	} {
		f.Add(value)
	}
	const address = "https://r.test:5000/v2/test/app/referrers/sha256:x?n=1"
	f.Fuzz(func(t *testing.T, value string) {
		base, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		target, ok, readable := nextLink(value)
		if ok && (target == "" || !strings.Contains(value, "<"+target+">")) {
			t.Errorf("%q: target %q is not in it", value, target)
		}
		if !ok && strings.Contains(value, "<") && !strings.Contains(value, ">") && readable {
			t.Errorf("%q: said to be a list of links", value)
		}
		u, err := nextPage(http.Header{"Link": {value}}, base)
		if base.String() != address {
			t.Errorf("%q: the base was changed to %s", value, base)
		}
		if u == nil {
			if ok && err == nil {
				t.Errorf("%q: the link to %q was lost", value, target)
			}
			return
		}
		// What is sent is the address as written: it must read the same.
		again, err := url.Parse(u.String())
		if err != nil {
			t.Fatalf("%q: %s cannot be read again: %v", value, u, err)
		}
		if again.Scheme != "https" || !strings.EqualFold(again.Host, "r.test:5000") || again.User != nil || again.Fragment != "" {
			t.Errorf("%q leads to %s", value, again)
		}
	})
}
