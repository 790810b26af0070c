package explain

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// huge is what a hostile registry can have a pull tell: types of control characters,
// of which JSON makes six bytes each. One of so many referrers makes its subject
// unknown, and the first entry of each subject is of a request.
func huge(subjects, left, doubt int) *Explanation {
	e := &Explanation{Image: "example.com/app:v1", Refused: "no"}
	for i := range subjects {
		s := outcome.Subject{
			Digest: digest.FromString(fmt.Sprint(i)), Status: labels.Unknown, Answers: []outcome.Answer{},
			Taken:   []outcome.Referrer{{Digest: digest.FromString("taken"), ArtifactType: "text/taken", Reason: "rule 1"}},
			Skipped: []outcome.Referrer{{Reason: "a request failed"}},
		}
		for n := range left {
			r := outcome.Referrer{Digest: digest.FromString(fmt.Sprint(i, n)), ArtifactType: strings.Repeat("\x01", 255), Reason: strings.Repeat("<&\x02", 255)}
			if n%doubt == 0 {
				r.Status = labels.Unknown
			}
			s.Skipped = append(s.Skipped, r)
		}
		e.Subjects = append(e.Subjects, s)
	}
	return e
}

// An explanation of any size reaches the client: what is left out is said, and is what
// matters least.
func TestHugeExplanation(t *testing.T) {
	const limit = 1 << 20
	for _, tc := range []struct {
		name                  string
		subjects, left, doubt int
		statuses              bool // all of them fit
	}{
		{"one subject", 1, 1000, 100, true},
		{"many subjects", 100, 10, 10, true},
		{"more reasons to doubt than fit", 2, 500, 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := huge(tc.subjects, tc.left, tc.doubt)
			data, err := bounded(e, limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) > limit || len(data) < limit*9/10 {
				t.Errorf("the answer has %d bytes, the limit is %d", len(data), limit)
			}
			var got Explanation
			if err := json.Unmarshal(data, &got); err != nil {
				t.Fatal(err)
			}
			if got.Image != e.Image || got.Refused != e.Refused || len(got.Subjects) != tc.subjects {
				t.Fatalf("image %s, refused %q, %d subjects", got.Image, got.Refused, len(got.Subjects))
			}
			for i, s := range got.Subjects {
				checkShort(t, e.Subjects[i], s, tc.statuses)
			}
			if n := len(e.Subjects[0].Skipped); n != tc.left+1 {
				t.Errorf("the caller's explanation has %d referrers, had %d", n, tc.left+1)
			}
		})
	}
}

// checkShort checks a subject that was shortened: its entries are the first of those
// that there were, in order, and the last tells how many are missing.
func checkShort(t *testing.T, whole, short outcome.Subject, statuses bool) {
	t.Helper()
	if !reflect.DeepEqual(whole.Taken, short.Taken) || short.Status != whole.Status {
		t.Errorf("%s: %d are taken, status %s", short.Digest, len(short.Taken), short.Status)
	}
	if len(short.Skipped) == len(whole.Skipped) {
		if !reflect.DeepEqual(whole.Skipped, short.Skipped) {
			t.Errorf("%s: what is left differs", short.Digest)
		}
		return
	}
	kept, note := short.Skipped[:len(short.Skipped)-1], short.Skipped[len(short.Skipped)-1]
	if want := fmt.Sprintf("%d more were not taken; one answer tells of as many as fit into 1 MiB", len(whole.Skipped)-len(kept)); !reflect.DeepEqual(note, outcome.Referrer{Reason: want}) {
		t.Errorf("%s: the note is %+v, want %q", short.Digest, note, want)
	}
	doubts := func(list []outcome.Referrer) (n int) {
		for _, r := range list {
			if r.Status != "" || r.Digest == "" {
				n++
			}
		}
		return n
	}
	if statuses && doubts(kept) != doubts(whole.Skipped) {
		t.Errorf("%s: %d entries that tell of a status or a request are kept, want %d", short.Digest, doubts(kept), doubts(whole.Skipped))
	}
	i := 0
	for _, r := range whole.Skipped {
		if i < len(kept) && reflect.DeepEqual(kept[i], r) {
			i++
		}
	}
	if i != len(kept) {
		t.Errorf("%s: entry %d of what is left is not in its order", short.Digest, i)
	}
}

func TestHugeExplanationFitsIntoAMessage(t *testing.T) {
	l := &line{make(chan typeurl.Any, 1)}
	daemon := answer{stream: l}
	if err := daemon.Send(huge(1, 5000, 100)); err != nil {
		t.Fatal(err)
	}
	message, err := l.Recv()
	if n := len(message.GetValue()); err != nil || n > defaults.DefaultMaxRecvMsgSize*2/3 {
		t.Errorf("the message has %d bytes, containerd takes %d: %v", n, defaults.DefaultMaxRecvMsgSize, err)
	}
}

// What fits is sent as it is.
func TestExplanationThatFits(t *testing.T) {
	e := huge(2, 3, 2)
	data, err := bounded(e, maxAnswer)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "<&") {
		t.Error("the answer is escaped for HTML")
	}
	var got Explanation
	if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(&got, e) {
		t.Errorf("received is %+v, %v", got, err)
	}
}
