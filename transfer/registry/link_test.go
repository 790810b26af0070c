package registry

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestNextLink(t *testing.T) {
	for _, tc := range []struct {
		name, value, want string // want is empty where there is no next link
	}{
		{"plain", `<https://r.test/a>; rel="next"`, "https://r.test/a"},
		{"relative", `</v2/a?last=x>; rel="next"`, "/v2/a?last=x"},
		{"unquoted", `</a>; rel=next`, "/a"},
		{"in single quotes", `</a>; rel='next'`, "/a"},
		{"upper case", `</a>; REL="NEXT"`, "/a"},
		{"no space", `</a>;rel=next`, "/a"},
		{"much space", `  </a>  ;  rel  =  "next"  `, "/a"},
		{"more parameters before", `</a>; title="x"; rel="next"`, "/a"},
		{"more parameters after", `</a>; rel="next"; title="x"`, "/a"},
		{"several relations", `</a>; rel="prefetch next last"`, "/a"},
		{"several links, the second is next", `</first>; rel="first", </a>; rel="next"`, "/a"},
		{"several links, two are next", `</a>; rel="next", </b>; rel="next"`, "/a"},
		{"comma in the target", `</a?x=1,2>; rel="next"`, "/a?x=1,2"},
		{"semicolon in the target", `</a;x=1>; rel="next"`, "/a;x=1"},
		{"comma in quotes", `</x>; title="a, </b>; rel=next"; rel="prev", </a>; rel="next"`, "/a"},
		{"semicolon in quotes", `</x>; title="a; rel=next"`, ""},
		{"escaped quote", `</x>; title="a\"; rel=next"`, ""},
		{"escaped quote, then more", `</a>; title="a\"b"; rel=next`, "/a"},
		{"empty", ``, ""},
		{"no relation", `</a>`, ""},
		{"relation without a value", `</a>; rel`, ""},
		{"empty relation", `</a>; rel=""`, ""},
		{"another relation", `</a>; rel="prev"`, ""},
		{"a relation that begins alike", `</a>; rel="nextpage"`, ""},
		{"a relation that ends alike", `</a>; rel="http://x.test/next"`, ""},
		{"a parameter that ends alike", `</a>; xrel="next"`, ""},
		{"no brackets", `/a; rel="next"`, ""},
		{"bracket not closed", `</a; rel="next"`, ""},
		{"bracket not opened", `/a>; rel="next"`, ""},
		{"empty target", `<>; rel="next"`, ""},
		{"commas alone", `,,,`, ""},
		{"garbage, then a link", `garbage, </a>; rel="next"`, "/a"},
		{"a million brackets", strings.Repeat("<", 1<<20), ""},
		// Looked at anew for each bracket, these would take minutes.
		{"brackets that never close", strings.Repeat("<,", 4<<20), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok, _ := nextLink(tc.value)
			if got != tc.want && ok || ok != (tc.want != "") {
				t.Errorf("%.80s: %q, %t, want %q", tc.value, got, ok, tc.want)
			}
		})
	}
}

func TestNextPage(t *testing.T) {
	const base = "https://r.test:5000/v2/test/app/referrers/sha256:x?n=1"
	for _, tc := range []struct {
		name  string
		links []string
		want  string
	}{
		{"none", nil, ""},
		{"no next among them", []string{`</a>; rel="prev"`}, ""},
		{"absolute", []string{`<https://r.test:5000/v2/a?page=2>; rel="next"`}, "https://r.test:5000/v2/a?page=2"},
		{"host in another case", []string{`<https://R.Test:5000/a>; rel="next"`}, "https://R.Test:5000/a"},
		{"without scheme", []string{`<//r.test:5000/a>; rel="next"`}, "https://r.test:5000/a"},
		{"from the root", []string{`</v2/a?page=2>; rel="next"`}, "https://r.test:5000/v2/a?page=2"},
		{"beside the base", []string{`<sha256:x?page=2>; rel="next"`}, "refused"}, // reads as a scheme
		{"beside the base, said so", []string{`<./sha256:x?page=2>; rel="next"`}, "https://r.test:5000/v2/test/app/referrers/sha256:x?page=2"},
		{"the query alone", []string{`<?page=2>; rel="next"`}, "https://r.test:5000/v2/test/app/referrers/sha256:x?page=2"},
		{"a fragment is dropped", []string{`</a#b>; rel="next"`}, "https://r.test:5000/a"},
		{"dots do not leave the host", []string{`</../../../a>; rel="next"`}, "https://r.test:5000/a"},
		{"in the second header", []string{`</x>; rel="prev"`, `</a>; rel="next"`}, "https://r.test:5000/a"},
		{"another host", []string{`<https://evil.test/a>; rel="next"`}, "refused"},
		{"another host without scheme", []string{`<//evil.test/a>; rel="next"`}, "refused"},
		{"another port", []string{`<https://r.test/a>; rel="next"`}, "refused"},
		{"a host that begins alike", []string{`<https://r.test:5000.evil.test/a>; rel="next"`}, "refused"},
		{"userinfo", []string{`<https://user:secret@r.test:5000/a>; rel="next"`}, "refused"},
		{"userinfo that looks like the host", []string{`<https://r.test:5000@evil.test/a>; rel="next"`}, "refused"},
		{"userinfo without scheme", []string{`<//user@r.test:5000/a>; rel="next"`}, "refused"},
		{"downgrade", []string{`<http://r.test:5000/a>; rel="next"`}, "refused"},
		{"another scheme", []string{`<file:///etc/passwd>; rel="next"`}, "refused"},
		{"the same scheme, opaque", []string{`<https:a>; rel="next"`}, "refused"},
		{"not to be read", []string{`<https://[::1>; rel="next"`}, "refused"},
		{"no brackets: it may have been the link", []string{`/a; rel="next"`}, "refused"},
		{"bracket not closed", []string{`</a; rel="next"`}, "refused"},
		{"an empty target", []string{`<>; rel="next"`}, "refused"},
		{"unreadable beside one that is not", []string{`garbage`, `</a>; rel="next"`}, "https://r.test:5000/a"},
		{"commas alone", []string{`,,,`}, ""},
		{"space around the target", []string{`< /a >; rel="next"`}, "https://r.test:5000/a"},
		{"the first of two relations counts", []string{`</a>; rel="prev"; rel="next"`}, ""},
		{"control characters", []string{"</a\x7f>; rel=\"next\""}, "refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u, err := url.Parse(base)
			if err != nil {
				t.Fatal(err)
			}
			got, err := nextPage(http.Header{"Link": tc.links}, u)
			switch {
			case tc.want == "refused":
				if got != nil || !errdefs.IsPermissionDenied(err) && !errdefs.IsInvalidArgument(err) {
					t.Errorf("%v, %v, want a refusal", got, err)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("the refusal tells the password: %v", err)
				}
			case err != nil:
				t.Error(err)
			case tc.want == "" && got != nil:
				t.Errorf("%s, want none", got)
			case tc.want != "" && (got == nil || got.String() != tc.want):
				t.Errorf("%v, want %s", got, tc.want)
			}
			if u.String() != base {
				t.Errorf("the base was changed to %s", u)
			}
		})
	}
}
