package referrers

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

func TestPrintExplanation(t *testing.T) {
	e := &explain.Explanation{
		Image: "example.com/app:v1", Digest: root, Rule: "rule 1", Selection: "rule 1: takes [all]",
		Limits:     explain.Limits{Timeout: "30s", MaxReferrers: 100, MaxBlobSize: 32 << 20, MaxTotalSize: 1<<30 + 1, MaxConcurrentDownloads: 3},
		CosignTags: "auto",
		Subjects: []outcome.Subject{
			{
				Digest: root, Image: true, Status: labels.Present,
				Answers: []outcome.Answer{
					{Host: "mirror.example.com", Mirror: true, Request: "referrers", Code: 404},
					{Host: "example.com", Request: "referrers", Code: 200, Status: labels.Present, Detail: "said \x1b[31m"},
				},
				Taken:   []outcome.Referrer{{Digest: digest.FromString("a"), ArtifactType: "x/\ay", Reason: "rule 1"}},
				Skipped: []outcome.Referrer{{Reason: "a listing\nfailed", Status: labels.Unknown}, {Reason: "7 more were not taken"}},
			},
			{Digest: node, Platform: "linux/amd64", Image: true, Status: labels.Absent},
			{Digest: digest.FromString("b"), Image: true, Status: labels.Absent},
			{Digest: digest.FromString("a"), Status: labels.Absent},
		},
	}
	var out strings.Builder
	if err := printExplanation(&out, e, pullVerdict(e)); err != nil {
		t.Fatal(err)
	}
	want := `example.com/app:v1 <root>
rule 1: takes [all]
limits: timeout 30s, max_referrers 100, max_blob_size 32MiB, max_total_size 1073741825B, max_concurrent_downloads 3; cosign_tags auto

root <root>: present
  asked mirror.example.com (mirror): referrers (HTTP 404)
  asked example.com: referrers: present (HTTP 200): said ?[31m
  take  <a> x/?y: rule 1
  error a listing?failed
  leave 7 more were not taken

linux/amd64 <node>: absent

manifest <b>: absent

referrer <a>: absent

a pull would succeed
`
	if got := named(out.String()); got != want {
		t.Errorf("it prints\n%s\nwant\n%s", got, want)
	}
	e.Subjects, e.Refused = nil, "no\x1b"
	out.Reset()
	if err := printExplanation(&out, e, pullVerdict(e)); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "no registry is asked") || !strings.HasSuffix(got, "a pull would fail: no?\n") {
		t.Errorf("it prints\n%s", got)
	}
}

// Whether a pull would succeed is said with what it would not know.
func TestPullVerdict(t *testing.T) {
	e := &explain.Explanation{
		Limits: explain.Limits{Timeout: "1ms"}, TimedOut: true, Unasked: 7,
		Subjects: []outcome.Subject{{Status: labels.Unknown}, {Status: labels.Present}, {Status: labels.Truncated}, {Status: labels.Unknown}},
	}
	var out strings.Builder
	if err := printExplanation(&out, e, pullVerdict(e)); err != nil {
		t.Fatal(err)
	}
	want := `
the search was ended after 1ms (key timeout)
7 manifests of the image were not asked about, over the limit of subjects a pull
a pull would succeed, without knowing all that refers to the image: 2 of 4 subjects unknown, 1 of 4 subjects truncated, 7 manifests not asked about
`
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("it prints\n%s", out.String())
	}
}

func TestSizesAreExact(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1: "1B", 1024: "1KiB", 1536: "1536B", 32 << 20: "32MiB", 5 << 40: "5TiB", 1 << 50: "1024TiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}
