package referrers

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// What a fetch changed is told by what the store has before and after.
func TestFetchedImageTells(t *testing.T) {
	before := &stored.Image{Referrers: []stored.Referrer{
		{Digest: digest.FromString("a")}, {Digest: digest.FromString("b")}, {Digest: digest.FromString("c"), Unlisted: now}, {Digest: digest.FromString("d"), Unlisted: now},
	}}
	after := &stored.Image{Referrers: []stored.Referrer{
		{Digest: digest.FromString("a")}, {Digest: digest.FromString("b"), Unlisted: now}, {Digest: digest.FromString("c")}, {Digest: digest.FromString("d"), Unlisted: now},
		{Digest: digest.FromString("root")},
	}}
	r := &fetchedImage{}
	r.tell(&explain.Explanation{Refused: "no", Verdict: &verdict.Verdict{Result: verdict.Refused}, Subjects: []outcome.Subject{
		{Image: true, Status: labels.Present}, {Image: true, Status: labels.Unknown}, {Status: labels.Truncated},
	}}, before, after)
	var added, withdrawn []string
	for _, d := range r.Added {
		added = append(added, named(d.String()))
	}
	for _, d := range r.Withdrawn {
		withdrawn = append(withdrawn, named(d.String()))
	}
	if strings.Join(added, " ") != "<c> <root>" || strings.Join(withdrawn, " ") != "<b>" || r.Status != labels.Unknown || r.Result != verdict.Refused || r.Refused != "no" || r.Unselected {
		t.Errorf("added %s, withdrawn %s, %+v", added, withdrawn, r)
	}
	r = &fetchedImage{}
	if r.tell(&explain.Explanation{}, before, before); !r.Unselected || len(r.Added)+len(r.Withdrawn) > 0 || r.Status != "" {
		t.Errorf("of an image that nothing is selected for: %+v", r)
	}
}

// The exit code is the highest that applies to any image, and the table has them all.
func TestAllFetched(t *testing.T) {
	image := func(change func(*fetchedImage)) *fetchedImage {
		r := &fetchedImage{Image: "example.com/app:v1", Digest: root, Status: labels.Present}
		change(r)
		return r
	}
	fine, fresh := image(func(*fetchedImage) {}), image(func(r *fetchedImage) { r.Fresh, r.Status = true, labels.Unknown })
	free := image(func(r *fetchedImage) { r.Status, r.Unselected = "", true })
	doubt, broken := image(func(r *fetchedImage) { r.Status = labels.Unknown }), image(func(r *fetchedImage) { r.Error = "gone" })
	no := image(func(r *fetchedImage) { r.Refused, r.Result = "it is refused", verdict.Refused })
	for name, tc := range map[string]struct {
		all  []*fetchedImage
		code int
	}{
		"none": {nil, 0}, "fine": {[]*fetchedImage{fine, fresh, free}, 0}, "unknown": {[]*fetchedImage{fine, doubt, broken}, exitUnknown},
		"an error": {[]*fetchedImage{broken}, exitError}, "refused": {[]*fetchedImage{no, doubt, broken}, exitRefused},
	} {
		if err := allFetched(tc.all); ExitCode(err) != tc.code {
			t.Errorf("%s: exit code %d, %v", name, ExitCode(err), err)
		}
	}
	var out strings.Builder
	if err := printFetchedTable(&out, []*fetchedImage{fine, fresh, free, doubt, broken, no}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(named(out.String())) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := `NAME DIGEST STATUS NEW WITHDRAWN VERDICT
example.com/app:v1 <root> present 0 0 -
example.com/app:v1 <root> unknown (not asked again) 0 0 -
example.com/app:v1 <root> unselected 0 0 -
example.com/app:v1 <root> unknown 0 0 -
example.com/app:v1 <root> error 0 0 -
example.com/app:v1 <root> present 0 0 refused
error image example.com/app:v1: gone
refused it is refused`
	if strings.Join(got, "\n") != want {
		t.Errorf("printed is\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}
