package registry

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

func repeat(path string, n int) []string { return slices.Repeat([]string{path}, n) }

// raw is a listing whose entries no library would write.
func raw(manifests string) hostile.Answer {
	return hostile.Content(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[`+manifests+`]}`))
}

// paged lists the entries page by page, and says after each that there is more.
func paged(pages int, each func(page int) []ocispec.Descriptor) []hostile.Answer {
	var out []hostile.Answer
	for page := 1; page <= pages; page++ {
		out = append(out, hostile.Index(each(page)...).With("Link", next(fmt.Sprintf("?page=%d", page+1))))
	}
	return out
}

// TestHostileSizes has the rows of answers that are too large, too many or too
// long.
func TestHostileSizes(t *testing.T) {
	valid := hostile.Index(entry(1))
	gzipped := hostile.Answer{Header: valid.Header, Body: compress(t, valid.Body)}.With("Content-Encoding", "gzip")
	broken := hostile.Answer{Header: gzipped.Header, Body: gzipped.Body[:len(gzipped.Body)/2]}
	zeros := compress(t, make([]byte, 1<<20))
	bomb := hostile.Answer{Header: valid.Header, Body: bytes.Repeat(zeros, 256)}.With("Content-Encoding", "gzip")
	zstd := hostile.Answer{Header: valid.Header, Body: append([]byte{0x28, 0xB5, 0x2F, 0xFD, 0x00, (29 - 10) << 3}, make([]byte, 32<<10)...)}.With("Content-Encoding", "zstd")
	single := func(page int) []ocispec.Descriptor { return []ocispec.Descriptor{entry(page)} }
	full := hostile.Index(entries(1, MaxEntries)...)
	for _, tc := range []row{
		{name: "Link loop to the same page", script: answering(valid.With("Link", next(api))),
			status: labels.Truncated, referrers: entries(1, 1), answers: []string{"referrers: 200 truncated"}, requests: repeat(api, 1)},
		{name: "Link loop to the same page, told apart by a fragment", script: answering(valid.With("Link", next("#again"))),
			status: labels.Truncated, referrers: entries(1, 1), answers: []string{"referrers: 200 truncated"}, requests: repeat(api, 1)},
		{name: "Link loop over two pages", script: answering(valid.With("Link", next("?page=2")), hostile.Index(entry(2)).With("Link", next(api))),
			status: labels.Truncated, referrers: entries(1, 2), answers: []string{"referrers, page 2: 200 truncated"}, requests: repeat(api, 2)},
		{name: "endless pages", script: answering(paged(MaxPages+5, single)...),
			status: labels.Truncated, referrers: entries(1, MaxPages), answers: []string{"referrers, page 16: 200 truncated"}, requests: repeat(api, MaxPages)},
		{name: "endless pages without entries", script: answering(paged(MaxPages+5, func(int) []ocispec.Descriptor { return nil })...),
			status: labels.Unknown, answers: []string{"referrers, page 16: 200 unknown"}, requests: repeat(api, MaxPages)},
		{name: "as many pages as there may be", script: answering(append(paged(MaxPages-1, single), hostile.Index(entry(MaxPages)))...),
			status: labels.Present, referrers: entries(1, MaxPages), answers: []string{"referrers, page 16: 200 present"}, requests: repeat(api, MaxPages)},
		{name: "gzip-encoded index", script: answering(gzipped),
			status: labels.Present, referrers: entries(1, 1), answers: []string{"referrers: 200 present"}, requests: repeat(api, 1)},
		{name: "gzip-encoded index under the tag", script: missing(404, gzipped),
			status: labels.Present, referrers: entries(1, 1), answers: []string{"referrers: 404", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "gzip-encoded index of 256 MiB", script: answering(bomb),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown"}, requests: repeat(api, 1)},
		{name: "32 KiB of zstd with a 512 MiB window", script: answering(zstd),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown"}, requests: repeat(api, 1)},
		{name: "a listing that is called zstd", script: answering(valid.With("Content-Encoding", "zstd")),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown"}, requests: repeat(api, 1)},
		{name: "zstd under the tag", script: missing(404, zstd),
			status: labels.Unknown, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
		{name: "gzip that is none", script: answering(valid.With("Content-Encoding", "gzip")),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown"}, requests: repeat(api, 1)},
		{name: "gzip cut short", script: answering(broken),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown"}, requests: repeat(api, 1)},
		{name: "gzip cut short under the tag", script: missing(404, broken),
			status: labels.Unknown, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
		{name: "Content-Length over the limit", script: answering(hostile.Answer{Header: valid.Header, Announce: artifact.MaxManifestSize + 1, Stall: true}),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown"}, requests: repeat(api, 1)},
		{name: "Content-Length over the limit under the tag", script: missing(404, hostile.Answer{Header: valid.Header, Announce: artifact.MaxManifestSize + 1, Stall: true}),
			status: labels.Unknown, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
		{name: "endless body", script: answering(hostile.Answer{Header: valid.Header, Body: make([]byte, 1<<20), Endless: true}),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown"}, requests: repeat(api, 1)},
		{name: "a page over the limit, after one that listed something", script: answering(valid.With("Link", next("?page=2")), hostile.Answer{Header: valid.Header, Announce: artifact.MaxManifestSize + 1, Stall: true}),
			status: labels.Truncated, referrers: entries(1, 1), answers: []string{"referrers, page 2: 200 truncated"}, requests: repeat(api, 2)},
		{name: "a login page over the limit", script: answering(hostile.Answer{Header: map[string]string{"Content-Type": "text/html"}, Announce: artifact.MaxManifestSize + 1, Stall: true}),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "a login page over the limit, and a listing under the tag", script: func(s *hostile.Server) {
			s.On(api, hostile.Answer{Header: map[string]string{"Content-Type": "text/html"}, Body: make([]byte, 1<<20), Endless: true})
			s.On(tag, valid)
		}, status: labels.Unknown, referrers: entries(1, 1), answers: []string{"referrers: 200 unknown", "tag: 200 present"}, requests: []string{api, tag}},
		{name: "JSON over the limit, which cannot say that it is a listing", script: answering(hostile.Answer{Header: map[string]string{"Content-Type": "application/json"}, Body: make([]byte, 1<<20), Endless: true}),
			status: labels.Unknown, answers: []string{"referrers: 200 unknown", "tag: 404 unknown"}, requests: []string{api, tag}},
		{name: "a login page over the limit under the tag", script: missing(404, hostile.Answer{Header: map[string]string{"Content-Type": "text/html"}, Body: make([]byte, 1<<20), Endless: true}),
			status: labels.Unknown, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
		{name: "a million entries", script: answering(raw(strings.Repeat("{},", 1_000_000) + "{}")),
			status: labels.Unknown, rejected: MaxEntries, answers: []string{"referrers: 200 unknown"}, requests: repeat(api, 1)},
		{name: "a million entries under the tag", script: missing(404, raw(strings.Repeat("{},", 1_000_000)+"{}")),
			status: labels.Unknown, rejected: MaxEntries, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
		{name: "as many entries as there may be", script: answering(full),
			status: labels.Present, referrers: entries(1, MaxEntries), answers: []string{"referrers: 200 present"}, requests: repeat(api, 1)},
		{name: "one entry more", script: answering(hostile.Index(entries(1, MaxEntries+1)...)),
			status: labels.Truncated, referrers: entries(1, MaxEntries), answers: []string{"referrers: 200 truncated"}, requests: repeat(api, 1)},
		{name: "one entry more, on a second page", script: answering(full.With("Link", next("?page=2")), hostile.Index(entry(MaxEntries+1))),
			status: labels.Truncated, referrers: entries(1, MaxEntries), answers: []string{"referrers, page 2: 200 truncated"}, requests: repeat(api, 2)},
		{name: "duplicate descriptors", script: answering(hostile.Index(entry(1), entry(2), entry(1), entry(1))),
			status: labels.Present, referrers: entries(1, 2), answers: []string{"referrers: 200 present"}, requests: repeat(api, 1)},
		{name: "duplicate descriptors over two pages", script: answering(hostile.Index(entries(1, 2)...).With("Link", next("?page=2")), hostile.Index(entries(1, 3)...)),
			status: labels.Present, referrers: entries(1, 3), answers: []string{"referrers, page 2: 200 present"}, requests: repeat(api, 2)},
	} {
		tc.run(t)
	}
}

// TestHostileEntries has the rows of entries that cannot be what they claim. A
// good one beside them is taken all the same.
func TestHostileEntries(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(d *ocispec.Descriptor)
	}{
		{"the subject refers to itself", func(d *ocispec.Descriptor) { d.Digest = subject }},
		{"digest ../../../_catalog", func(d *ocispec.Descriptor) { d.Digest = "../../../_catalog" }},
		{"digest sha256:..?x", func(d *ocispec.Descriptor) { d.Digest = "sha256:..?x" }},
		{"empty digest", func(d *ocispec.Descriptor) { d.Digest = "" }},
		{"short digest", func(d *ocispec.Descriptor) { d.Digest = d.Digest[:len(d.Digest)-1] }},
		{"malformed digest", func(d *ocispec.Descriptor) { d.Digest = ":" }},
		{"no algorithm that is known", func(d *ocispec.Descriptor) { d.Digest = "md5:" + digest.Digest(strings.Repeat("0", 32)) }},
		{"size -1", func(d *ocispec.Descriptor) { d.Size = -1 }},
		{"size 0", func(d *ocispec.Descriptor) { d.Size = 0 }},
		{"size 2^62", func(d *ocispec.Descriptor) { d.Size = 1 << 62 }},
		{"one byte over what is taken for a mistake", func(d *ocispec.Descriptor) { d.Size = MaxListedSize + 1 }},
		{"a layer, which cannot refer", func(d *ocispec.Descriptor) { d.MediaType = ocispec.MediaTypeImageLayer }},
		{"no media type", func(d *ocispec.Descriptor) { d.MediaType = "" }},
	} {
		bad := entry(1)
		tc.spoil(&bad)
		row{name: tc.name, script: answering(hostile.Index(bad, entry(2))),
			status: labels.Present, referrers: entries(2, 2), rejected: 1,
			answers: []string{"referrers: 200 present"}, requests: repeat(api, 1)}.run(t)
	}
}

// Harbor before 2.11 lists the size of all that an artifact holds. What is handed on is
// within the limit of manifests.
func TestListedSizeIsAHint(t *testing.T) {
	for listed, want := range map[int64]int64{
		1:                            1,
		artifact.MaxManifestSize:     artifact.MaxManifestSize,
		artifact.MaxManifestSize + 1: artifact.MaxManifestSize,
		5243472:                      artifact.MaxManifestSize,
		MaxListedSize:                artifact.MaxManifestSize,
	} {
		d := entry(1)
		d.Size = listed
		handed := d
		handed.Size = want
		row{name: fmt.Sprint(listed), script: answering(hostile.Index(d)),
			status: labels.Present, referrers: []ocispec.Descriptor{handed},
			answers: []string{"referrers: 200 present"}, requests: repeat(api, 1)}.run(t)
	}
}

// Where nothing but a limit refused what is listed, that is what is said.
func TestListingOfWhichNoneCanBe(t *testing.T) {
	huge, negative, itself := entry(1), entry(2), entry(3)
	huge.Size, negative.Size, itself.Digest = MaxListedSize+1, -1, subject
	for _, tc := range []struct {
		name   string
		listed []ocispec.Descriptor
		status labels.Status
	}{
		{"all are too large", []ocispec.Descriptor{huge, huge}, labels.Truncated},
		{"all are too large, or the subject itself", []ocispec.Descriptor{huge, itself}, labels.Truncated},
		{"one is malformed", []ocispec.Descriptor{huge, negative}, labels.Unknown},
		{"the subject itself alone", []ocispec.Descriptor{itself}, labels.Unknown},
	} {
		index := hostile.Index(tc.listed...)
		row{name: tc.name, script: answering(index), status: tc.status, rejected: len(tc.listed),
			answers: []string{fmt.Sprintf("referrers: 200 %s", tc.status)}, requests: repeat(api, 1)}.run(t)
		row{name: tc.name + ", under the tag", script: missing(404, index), status: tc.status, rejected: len(tc.listed),
			answers: []string{"referrers: 404", fmt.Sprintf("tag: 200 %s", tc.status)}, requests: []string{api, tag}}.run(t)
	}
}

func TestRejectionSaysWhichAndWhy(t *testing.T) {
	s := hostile.New(t)
	bad := entry(1)
	bad.Size = -1
	s.On(api, hostile.Index(bad))
	l, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).List(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Rejected) != 1 || l.Rejected[0].Digest != bad.Digest || !strings.Contains(l.Rejected[0].Reason, "size -1") {
		t.Errorf("rejected %v, want %s for its size", l.Rejected, bad.Digest)
	}
}

func TestMillionEntriesAreNotHeld(t *testing.T) {
	s := hostile.New(t)
	s.On(api, raw(strings.Repeat("{},", 1_000_000)+"{}"))
	r := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := r.List(t.Context(), subject); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	// A million descriptors are 200 MB; the body, and a buffer that grew to
	// it, are what may be allocated.
	if used := after.TotalAlloc - before.TotalAlloc; used > 16*artifact.MaxManifestSize {
		t.Errorf("allocated %d MiB for a listing of 3", used>>20)
	}
}

// What is remembered of entries, refused ones as well, is a small part of the listing.
func TestEntriesThatSayMuchAreNotHeld(t *testing.T) {
	const length = 64_000
	long := strings.Repeat("x", length)
	s := hostile.New(t)
	s.On(api, paged(4, func(page int) []ocispec.Descriptor {
		var out []ocispec.Descriptor
		for n := range 20 {
			typed, told := entry(100*page+n), annotated(entry(1000*page+n), long)
			typed.MediaType = "application/" + long
			out = append(out, typed, told)
		}
		return out
	})...)
	l, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).List(t.Context(), subject)
	if err != nil || len(l.Referrers) == 0 || len(l.Rejected) == 0 {
		t.Fatalf("%d entries, %d refused, %v, want some of each", len(l.Referrers), len(l.Rejected), err)
	}
	for _, d := range l.Referrers {
		if n := len(fmt.Sprint(d)); n > length/10 {
			t.Errorf("%s holds %d bytes", d.Digest, n)
		}
	}
	for _, r := range l.Rejected {
		if n := len(fmt.Sprint(r)); n > length/10 {
			t.Errorf("%s, which is refused, holds %d bytes", r.Digest, n)
		}
	}
}

func TestWhatAListedDescriptorCarriesIsNotDialled(t *testing.T) {
	s, other := hostile.New(t), hostile.New(t)
	lure := entry(1)
	lure.URLs = []string{other.URL() + "/blob"}
	lure.Data = []byte("inline")
	lure.Platform = &ocispec.Platform{OS: "linux"}
	s.On(api, hostile.Index(lure))
	l, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).List(t.Context(), subject)
	if err != nil || len(l.Referrers) != 1 {
		t.Fatalf("%d referrers, %v, want 1", len(l.Referrers), err)
	}
	if d := l.Referrers[0]; d.URLs != nil || d.Data != nil || d.Platform != nil {
		t.Errorf("kept %v, %q, %v, want nothing to be led astray by", d.URLs, d.Data, d.Platform)
	}
	if got := other.Paths(); len(got) > 0 {
		t.Errorf("the address in the descriptor was asked for %q", got)
	}
}
