package referrers

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// printImages prints one line an image, with how many of each kind refer to the
// image itself: the signature of an SBOM does not sign the image.
func printImages(w io.Writer, list []*stored.Image, now time.Time) error {
	t := newTable(w, "NAME", "DIGEST", "STATUS", "CHECKED", "SIGNATURES", "ATTESTATIONS", "SBOMS", "OTHER")
	for _, image := range list {
		count := map[string]int{}
		for _, r := range image.Referrers {
			count[artifact.SetOf(policyOf(r))]++
		}
		t.row(image.Name, image.Digest, imageStatus(image), checked(image.Checked, now),
			count[artifact.SetSignatures], count[artifact.SetAttestations], count[artifact.SetSBOMs], count[""])
	}
	return t.flush()
}

// printReferrers prints one line a referrer; a subject without any has a line too.
func printReferrers(w io.Writer, image *stored.Image, now time.Time) error {
	t := newTable(w, "SUBJECT", "STATUS", "CHECKED", "ARTIFACT TYPE", "DIGEST", "SIZE", "LISTED")
	var rows func(subject string, status, checked any, of digest.Digest, list []stored.Referrer) int
	rows = func(subject string, status, checked any, of digest.Digest, list []stored.Referrer) int {
		n := 0
		for _, r := range list {
			if r.Subject != of {
				continue
			}
			n++
			listed := "yes"
			if !r.Unlisted.IsZero() {
				listed = "not since " + r.Unlisted.Format(time.RFC3339)
			}
			t.row(subject, status, checked, typeOf(r), r.Digest, size(r), listed)
			rows(short(r.Digest), "-", "-", r.Digest, r.Referrers)
		}
		return n
	}
	for _, s := range image.Subjects {
		if rows(s.Name(), statusOf(image, s), checked(s.Checked, now), s.Digest, image.Referrers) == 0 {
			t.row(s.Name(), statusOf(image, s), checked(s.Checked, now), "-", "-", "-", "-")
		}
	}
	if n := len(flat(image.Referrers)); n > 0 {
		t.row("total", "-", "-", "-", n, bytesText(totalSize(image.Referrers)), "-")
	}
	return t.flush()
}

// short is enough of a digest to find the line that has the whole of it.
func short(dgst digest.Digest) string {
	hex := dgst.Encoded()
	return dgst.Algorithm().String() + ":" + hex[:min(12, len(hex))]
}

func checked(at, now time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return age(at, now)
}

// table is laid out as ctr's own are.
type table struct {
	tw  *tabwriter.Writer
	err error
}

func newTable(w io.Writer, columns ...any) *table {
	t := &table{tw: tabwriter.NewWriter(w, 1, 8, 1, ' ', 0)}
	t.row(columns...)
	return t
}

func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = printable(fmt.Sprint(c))
	}
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.tw, strings.Join(text, "\t")+"\t")
	}
}

func (t *table) flush() error {
	if t.err != nil {
		return t.err
	}
	return t.tw.Flush()
}
