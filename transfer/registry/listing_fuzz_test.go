package registry

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// FuzzListing holds what a listing promises of its referrers, whatever two pages of it
// say: each once, each fetchable, none the subject itself, and no more than the limit.
func FuzzListing(f *testing.F) {
	const one = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7,"artifactType":"a/b"}`
	for _, seed := range []string{
		``, one, one + `,` + one, `{}`, `{"digest":"sha256:..?x","size":1}`, `{"digest":"","size":0}`,
		strings.Replace(one, `"size":7`, `"size":-1`, 1), strings.Replace(one, `"size":7`, `"size":4611686018427387904`, 1),
		strings.Replace(one, "image.manifest", "image.layer", 1), strings.Replace(one, "sha256:", "sha512:", 1),
	} {
		f.Add(seed, one)
	}
	f.Add(one, strings.Replace(one, "a/b", "c/d", 1))
	f.Fuzz(func(t *testing.T, first, second string) {
		told := map[digest.Digest]int{}
		var listing Listing
		l := &lister{subject: subject, listing: &listing, found: func(page []ocispec.Descriptor) {
			for _, d := range page {
				if told[d.Digest]++; told[d.Digest] > 1 && d.ArtifactType != "" || told[d.Digest] > 2 {
					t.Errorf("%+v is told %d times", d, told[d.Digest]) // again only without what was contradicted
				}
			}
		}}
		entries := 0
		for _, page := range []string{first, second} {
			index, err := artifact.ParseIndex([]byte(`{"schemaVersion":2,"manifests":[` + page + `]}`))
			if err != nil {
				return
			}
			entries += len(index.Entries)
			if l.addEntries(index) && index.More {
				t.Error("a page with more than the limit was taken for whole")
			}
		}
		if len(told) != len(listing.Referrers) || len(listing.Referrers)+len(listing.Rejected) > min(entries, 2*MaxEntries) {
			t.Errorf("%d told, %d listed, %d rejected of %d", len(told), len(listing.Referrers), len(listing.Rejected), entries)
		}
		seen := map[digest.Digest]bool{}
		for _, d := range listing.Referrers {
			if seen[d.Digest] || told[d.Digest] == 0 || d.Digest == subject || artifact.Check(d, artifact.MaxManifestSize) != nil ||
				!artifact.IsReferrer(d.MediaType) {
				t.Errorf("%+v was listed", d)
			}
			seen[d.Digest] = true
		}
		for _, r := range listing.Rejected {
			if len(r.Reason) > 400 || len(r.ArtifactType) > 400 || len(r.Digest) > 400 {
				t.Errorf("%d, %d and %d bytes are kept of what was rejected", len(r.Reason), len(r.ArtifactType), len(r.Digest))
			}
		}
	})
}

// tagName is the grammar of a tag (OCI distribution-spec, "Pulling manifests").
var tagName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// FuzzCosignTag has the tag of every valid sha256 subject be one, and name no other's.
func FuzzCosignTag(f *testing.F) {
	for _, d := range []string{string(subject), "sha256:00", "sha256:../x", ":", "sha512:" + strings.Repeat("0", 128)} {
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, value string) {
		d := digest.Digest(value)
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return // not asked for
		}
		for _, kind := range CosignKinds {
			if tag := kind.Tag(d); !tagName.MatchString(tag) || !strings.Contains(tag, d.Encoded()) || !strings.HasSuffix(tag, kind.Suffix) {
				t.Errorf("%q: %q is no tag of it", value, tag)
			}
		}
	})
}

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
