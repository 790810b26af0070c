package registry

import (
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

func TestWorse(t *testing.T) {
	order := []labels.Status{"", labels.Absent, labels.Present, labels.Truncated, labels.Unknown}
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Worse(b), order[max(i, j)]; got != want {
				t.Errorf("%q and %q: %q, want %q", a, b, got, want)
			}
		}
	}
}

func TestAnswerString(t *testing.T) {
	for want, a := range map[string]outcome.Answer{
		"r.test: referrers: present (HTTP 200): 3 listed":   {Host: "r.test", Request: "referrers", Code: 200, Status: labels.Present, Detail: "3 listed"},
		"r.test: referrers (HTTP 404): no such endpoint":    {Host: "r.test", Request: "referrers", Code: 404, Status: "", Detail: "no such endpoint"},
		"r.test: referrers: unknown: no headers within 10s": {Host: "r.test", Request: "referrers", Code: 0, Status: labels.Unknown, Detail: "no headers within 10s"},
		"r.test: tag sha256-00: absent (HTTP 404)":          {Host: "r.test", Request: "tag sha256-00", Code: 404, Status: labels.Absent, Detail: ""},
	} {
		if got := a.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
