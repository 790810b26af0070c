package referrers

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

func TestExitCode(t *testing.T) {
	for want, err := range map[int]error{
		0:         nil,
		exitError: errors.New("x"),
		exitUsage: fmt.Errorf("wrapped: %w", usagef("x")),
	} {
		if got := ExitCode(err); got != want {
			t.Errorf("%v exits with %d, want %d", err, got, want)
		}
		if got := ExitCode(shown(err)); got != want {
			t.Errorf("%v, shown, exits with %d, want %d", err, got, want)
		}
	}
	err := shown(fmt.Errorf("said \x1b[31m: %w", errdefs.ErrNotFound))
	if !errdefs.IsNotFound(err) || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("shown is %q", err)
	}
	if shown(nil) != nil {
		t.Error("no error is shown as one")
	}
}

// Every code is in the help.
func TestExitCodesAreDescribed(t *testing.T) {
	for _, c := range Command.Commands {
		for code := range exitRefused + 1 {
			if !strings.Contains(c.Description, fmt.Sprintf("\n  %d  ", code)) {
				t.Errorf("the help of %s lacks code %d", c.Name, code)
			}
		}
	}
}

func TestFetchedExitCode(t *testing.T) {
	subject := func(s labels.Status, taken, left int) outcome.Subject {
		return outcome.Subject{Status: s, Taken: make([]outcome.Referrer, taken), Skipped: make([]outcome.Referrer, left)}
	}
	for name, tc := range map[string]struct {
		e    explain.Explanation
		want int
	}{
		"taken":              {explain.Explanation{Subjects: []outcome.Subject{subject(labels.Present, 1, 1)}}, 0},
		"not asked":          {explain.Explanation{}, exitUnknown},
		"absent":             {explain.Explanation{Subjects: []outcome.Subject{subject(labels.Absent, 0, 0)}}, exitNone},
		"left":               {explain.Explanation{Subjects: []outcome.Subject{subject(labels.Present, 0, 1)}}, exitNone},
		"unknown":            {explain.Explanation{Subjects: []outcome.Subject{subject(labels.Present, 1, 0), subject(labels.Unknown, 0, 0)}}, exitUnknown},
		"truncated":          {explain.Explanation{Subjects: []outcome.Subject{subject(labels.Truncated, 1, 0)}}, exitUnknown},
		"not all asked":      {explain.Explanation{Unasked: 1, Subjects: []outcome.Subject{subject(labels.Present, 1, 0)}}, exitUnknown},
		"refused, unknown":   {explain.Explanation{Refused: "x", Subjects: []outcome.Subject{subject(labels.Unknown, 0, 0)}}, exitRefused},
		"refused, nothing":   {explain.Explanation{Refused: "x", Subjects: []outcome.Subject{subject(labels.Absent, 0, 0)}}, exitRefused},
		"a referrer's alone": {explain.Explanation{Subjects: []outcome.Subject{subject(labels.Absent, 0, 0), subject(labels.Absent, 1, 0)}}, 0},
	} {
		if got := ExitCode(fetched(&tc.e)); got != tc.want {
			t.Errorf("%s: exits with %d, want %d", name, got, tc.want)
		}
	}
}

// That nothing is stored says something of the registry only where that was learnt in
// full.
func TestNoneStored(t *testing.T) {
	for status, want := range map[labels.Status]int{
		labels.Absent: exitNone, labels.Present: exitNone,
		labels.Unknown: exitUnknown, labels.Truncated: exitUnknown,
	} {
		if got := ExitCode(noneStored(&stored.Image{Digest: root, Status: status}, []string{"sboms"})); got != want {
			t.Errorf("%s: exits with %d, want %d", status, got, want)
		}
	}
}
