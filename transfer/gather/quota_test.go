package gather

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// exhaustPull takes what room a pull has for referrers.
func exhaustPull(t *testing.T, q *quota) {
	t.Helper()
	for i := range outcome.MaxSubjects {
		if err := q.accept(digest.FromString(fmt.Sprint("another subject ", i)), outcome.Listed); err != nil {
			t.Fatal(err)
		}
	}
}

// Each limit lets in as much as it says, and no more; the error names it.
func TestQuota(t *testing.T) {
	t.Parallel()
	limits := Limits{MaxReferrers: 3, MaxBlobSize: 10, MaxTotalSize: 100}
	subject, other := digest.FromString("subject"), digest.FromString("other")
	content := func(i int, size int64) ocispec.Descriptor {
		return ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint(i)), Size: size}
	}
	for _, tc := range []struct {
		name  string
		limit outcome.Limit
		says  string
		fits  int
		take  func(q *quota, i int) error
	}{
		{"subjects of the image", outcome.LimitSubjects, "1000 subjects a pull", 1000, func(q *quota, _ int) error { return q.addSubject(true) }},
		{"subjects that are referrers", outcome.LimitSubjects, "1000 subjects a pull", 1000, func(q *quota, _ int) error { return q.addSubject(false) }},
		{"subjects of both kinds", outcome.LimitSubjects, "1000 subjects a pull", 2000, func(q *quota, i int) error { return q.addSubject(i%2 == 0) }},
		{"referrers of a subject", outcome.LimitReferrers, "3 referrers a subject (key max_referrers)", 3, func(q *quota, _ int) error { return q.accept(subject, outcome.Listed) }},
		{"referrers of a subject, listed and in the image's index", outcome.LimitReferrers, "3 referrers a subject", 6, func(q *quota, i int) error {
			return q.accept(subject, []outcome.Origin{outcome.Listed, outcome.Embedded}[i%2])
		}},
		{"referrers of two subjects", outcome.LimitReferrers, "3 referrers a subject", 6, func(q *quota, i int) error {
			return q.accept([]digest.Digest{subject, other}[i%2], outcome.Listed)
		}},
		{"referrers of a pull", outcome.LimitPull, "1000 referrers a pull", 1000, func(q *quota, i int) error {
			return q.accept(digest.FromString(fmt.Sprint(i)), outcome.Listed)
		}},
		{"referrers whose manifest decides", outcome.LimitPull, "1000 referrers a pull whose manifest must decide", 1000, func(q *quota, _ int) error { return q.ask() }},
		{"bytes", outcome.LimitTotalSize, "100 bytes in all (key max_total_size)", 10, func(q *quota, i int) error { return q.reserve(content(i, 10)) }},
		{"a single piece that is too large", outcome.LimitTotalSize, "100 bytes in all", 0, func(q *quota, i int) error { return q.reserve(content(i, 101)) }},
		{"pieces", outcome.LimitOther, "10000 manifests and blobs in all", 10_000, func(q *quota, i int) error { return q.reserve(content(i, 0)) }},
		{"pieces and requests that failed", outcome.LimitOther, "10000 manifests and blobs in all", 5000, func(q *quota, i int) error {
			q.fail(errdefs.ErrUnavailable)
			return q.reserve(content(i, 0))
		}},
		{"requests after too many failed", outcome.LimitOther, "10000 manifests and blobs in all", 10_000, func(q *quota, _ int) error {
			err := q.mayRequest()
			q.fail(errdefs.ErrUnavailable)
			return err
		}},
		{"manifests that came to nothing", outcome.LimitTotalSize, "not taken came to 100 bytes (key max_total_size)", 10, func(q *quota, _ int) error {
			err := q.mayRequest()
			q.discard(make([]byte, 10))
			return err
		}},
		{"wrong bytes, of which how many is not known", outcome.LimitTotalSize, "not taken came to", 1, func(q *quota, _ int) error {
			err := q.mayRequest()
			q.fail(errdefs.ErrFailedPrecondition)
			return err
		}},
		{"what is remembered", outcome.LimitOther, "4 MiB", 64, func(q *quota, _ int) error { return q.remember(64<<10, false) }},
		{"doubts that are remembered", outcome.LimitOther, "4 MiB", 96, func(q *quota, _ int) error { return q.remember(64<<10, true) }},
		{"what never fits", outcome.LimitOther, "4 MiB", 0, func(q *quota, _ int) error { return q.remember(4<<20+1, false) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			q := newQuota(limits)
			for i := range tc.fits {
				if err := tc.take(q, i); err != nil {
					t.Fatalf("number %d: %v, want %d to fit", i+1, err, tc.fits)
				}
			}
			err := tc.take(q, tc.fits)
			if !errdefs.IsResourceExhausted(err) || limitOf(err) != tc.limit || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v of limit %q, want %q of limit %q", err, limitOf(err), tc.says, tc.limit)
			}
			if again := tc.take(q, tc.fits); again == nil {
				t.Error("what did not fit fits the second time")
			}
		})
	}
}

// Content counts once, however many referrers share it; one that lies of its size does not
// pass for it.
func TestQuotaCountsContentOnce(t *testing.T) {
	t.Parallel()
	q := newQuota(Limits{MaxTotalSize: 100})
	shared := ocispec.Descriptor{Digest: digest.FromString("shared"), Size: 60}
	for range 3 {
		if err := q.reserve(shared); err != nil {
			t.Fatal(err)
		}
	}
	shared.Size = 50
	if err := q.reserve(shared); limitOf(err) != outcome.LimitTotalSize {
		t.Errorf("%v, want another size to count", err)
	}
}

// What refuses takes nothing.
func TestQuotaLeft(t *testing.T) {
	t.Parallel()
	q := newQuota(Limits{MaxReferrers: 2})
	subject := digest.FromString("subject")
	exhaustPull(t, q)
	if err := q.accept(subject, outcome.Listed); limitOf(err) != outcome.LimitPull {
		t.Fatal(err)
	}
	if n := q.left(subject); n != 2 {
		t.Errorf("room for %d is left, want 2", n)
	}
}

// A thousand entries for each of many subjects are judged, and not all remembered, whatever
// their types make of their JSON: what explain answers fits into a message. Why a subject
// cannot be trusted is remembered.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	const entries, subjects = 900, 20
	for name, unwanted := range map[string]string{"a type": spdx, "control characters": strings.Repeat("\x01", artifact.MaxTypeLength)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			g := New(w.ctx, w.config(policy.Rule{ArtifactTypes: []string{"signatures"}}))
			defer g.Close()
			for i := range subjects {
				subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: 1}
				listed := []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: signature, Digest: digest.FromString("not there"), Size: 1}}
				for j := range entries {
					listed = append(listed, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: unwanted, Digest: digest.FromString(fmt.Sprint(i, j)), Size: 1})
				}
				w.list(subject, listed...)
				g.Image(subject)
			}
			out := g.Wait(w.ctx)
			for _, s := range out.Subjects {
				if s.Status != labels.Unknown || len(s.Doubts()) != 1 {
					t.Errorf("%s is %s with doubts %q, want unknown, for the signature that is not there", s.Digest, s.Status, s.Doubts())
				}
				if !strings.HasPrefix(s.Why, "unknown; "+digest.FromString("not there").String()) || !strings.Contains(s.Why, fmt.Sprintf("and %d more", entries+2-6)) {
					t.Errorf("%s: %q does not count the rest", s.Digest, s.Why)
				}
			}
			data, err := json.Marshal(out.Subjects)
			if most := maxRemembered + maxDoubts + subjects*1024; err != nil || len(data) > most || len(data) < maxRemembered/2 {
				t.Errorf("the outcome's JSON has %d bytes, %v, want %d at most", len(data), err, most)
			}
		})
	}
}
