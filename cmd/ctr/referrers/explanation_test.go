package referrers

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
)

func TestPrintExplanation(t *testing.T) {
	e := &explain.Explanation{
		Image: "example.com/app:v1", Digest: root, Rule: "rule 1", Selection: "rule 1: takes [all]",
		Subjects: []explain.Subject{
			{
				Digest: root, Image: true, Status: discovery.Present,
				Answers: []explain.Answer{{Host: "example.com", Request: "referrers", Code: 200, Status: discovery.Present, Detail: "said \x1b[31m"}},
				Taken:   []explain.Referrer{{Digest: digest.FromString("a"), ArtifactType: "x/\ay", Reason: "rule 1"}},
				Left:    []explain.Referrer{{Reason: "a listing\nfailed"}},
			},
			{Digest: node, Platform: "linux/amd64", Image: true, Status: discovery.Absent},
			{Digest: digest.FromString("b"), Image: true, Status: discovery.Absent},
			{Digest: digest.FromString("a"), Status: discovery.Absent},
		},
	}
	var out strings.Builder
	if err := printExplanation(&out, e, pullVerdict(e)); err != nil {
		t.Fatal(err)
	}
	want := `example.com/app:v1 <root>
rule 1: takes [all]

root <root>: present
  asked example.com: referrers: present (HTTP 200): said ?[31m
  take  <a> x/?y: rule 1
  error a listing?failed

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
