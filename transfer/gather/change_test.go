package gather

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// A referrer came where it is tied anew or listed again, and was withdrawn where it is marked, or
// untied before it was marked. What stays as it was is no change.
func TestChangesOf(t *testing.T) {
	subject, a := digest.FromString("subject"), digest.FromString("a")
	tied := labels.TieLabels(nil, a)
	mark := map[string]string{labels.Unlisted(a): time.Unix(1e9, 0).UTC().Format(time.RFC3339)}
	both := maps.Clone(tied)
	maps.Copy(both, mark)
	none := func(m map[string]string) map[string]string {
		out := map[string]string{}
		for k := range m {
			out[k] = ""
		}
		return out
	}
	for name, tc := range map[string]struct {
		existing, set map[string]string
		want          string
	}{
		"tied":                            {nil, tied, "came"},
		"tied again":                      {tied, tied, ""},
		"marked":                          {tied, mark, "withdrawn"},
		"still marked":                    {both, mark, ""},
		"listed again":                    {both, none(mark), "came"},
		"pruned":                          {tied, none(tied), "withdrawn"},
		"pruned after it was marked":      {both, none(both), ""},
		"a mark of what is not tied":      {nil, mark, ""},
		"a status, and nothing else":      {tied, labels.Checkmark(labels.Present, time.Unix(2e9, 0)), ""},
		"a status of what was never tied": {nil, labels.Checkmark(labels.Absent, time.Unix(2e9, 0)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := maps.Clone(tc.existing)
			got := ""
			for _, c := range changesOf(subject, tc.existing, tc.set, "a.test/app") {
				if c.Subject != subject || c.Referrer != a {
					t.Errorf("change %+v", c)
				}
				got += map[bool]string{true: "withdrawn", false: "came"}[c.Withdrawn]
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if fmt.Sprint(before) != fmt.Sprint(tc.existing) {
				t.Error("the labels that are there were changed")
			}
		})
	}
}
