package referrers

import (
	"testing"
	"time"
)

// A registry that asks to be left alone is, while others are asked, and its images are tried once
// more.
func TestFetchQueue(t *testing.T) {
	a1, a2, b := &fetchJob{registry: "a", ref: "1"}, &fetchJob{registry: "a", ref: "2"}, &fetchJob{registry: "b", ref: "3"}
	q := &fetchQueue{jobs: []*fetchJob{a1, a2, b}}
	next := func(at time.Time, want *fetchJob, wantWait time.Duration) {
		t.Helper()
		if job, wait := q.next(at); job != want || wait != wantWait {
			t.Fatalf("next is %+v after %s, want %+v after %s", job, wait, want, wantWait)
		}
	}
	next(now, a1, 0)
	if !q.pause(a1, time.Minute, now) {
		t.Error("an image is not tried again")
	}
	next(now, b, 0)
	next(now.Add(20*time.Second), nil, 40*time.Second)
	later := now.Add(time.Minute)
	next(later, a2, 0)
	next(later, a1, 0)
	if q.pause(a1, 24*time.Hour, later) {
		t.Error("an image is tried a third time")
	}
	next(later, nil, 0)
	if !q.pause(a2, time.Second, later) {
		t.Error("an image is not tried again")
	}
	next(later, nil, maxPause) // the longer pause holds, and has a limit
}
