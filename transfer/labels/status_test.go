package labels

import (
	"maps"
	"slices"
	"testing"
	"time"
)

// The worse of two is the one that says less, in whichever order they are met.
func TestWorse(t *testing.T) {
	t.Parallel()
	order := []Status{"", Absent, Present, Truncated, Unknown}
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Worse(b), order[max(i, j)]; got != want {
				t.Errorf("of %q and %q: %q, want %q", a, b, got, want)
			}
		}
	}
	if all := slices.Sorted(slices.Values(order[1:])); !slices.Equal(slices.Sorted(slices.Values(Statuses)), all) {
		t.Errorf("the statuses are %q, want %q", Statuses, all)
	}
	for _, s := range order {
		if got, want := s.Incomplete(), s == Truncated || s == Unknown; got != want {
			t.Errorf("%q is incomplete: %t", s, got)
		}
	}
}

// What is not certain to say present or absent is unknown.
func TestReadCheckmark(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 1, 12, 30, 5, 0, time.UTC)
	for _, status := range Statuses {
		if got, when := ReadCheckmark(Checkmark(status, at)); got != status || !when.Equal(at) {
			t.Errorf("%q at %v is read as %q at %v", status, at, got, when)
		}
	}
	for name, change := range map[string]map[string]string{
		"a status of another version": {StatusKey: "stale"},
		"no status":                   {StatusKey: ""},
		"a status in capitals":        {StatusKey: "Absent"},
	} {
		labels := Checkmark(Absent, at)
		maps.Copy(labels, change)
		if got, when := ReadCheckmark(labels); got != Unknown || !when.Equal(at) {
			t.Errorf("%s: %q at %v", name, got, when)
		}
	}
	for name, change := range map[string]map[string]string{
		"a time that is none": {CheckedKey: "yesterday"},
		"no time":             {CheckedKey: ""},
	} {
		labels := Checkmark(Absent, at)
		maps.Copy(labels, change)
		if got, when := ReadCheckmark(labels); got != Unknown || !when.IsZero() {
			t.Errorf("%s: %q at %v", name, got, when)
		}
	}
	if got, when := ReadCheckmark(nil); got != Unknown || !when.IsZero() {
		t.Errorf("no labels: %q at %v", got, when)
	}
}
