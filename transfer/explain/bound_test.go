package explain

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/errdefs"
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

// One that is too large is an error that says so, and no message that containerd refuses.
func TestExplanationThatIsTooLarge(t *testing.T) {
	l := &line{make(chan typeurl.Any, 1)}
	daemon := answer[Explanation]{stream: l}
	if err := daemon.Send(huge(1, 5000, 100)); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "example.com/app:v1") {
		t.Errorf("%v, want an errdefs.ErrResourceExhausted that names the image", err)
	}
	if len(l.messages) > 0 {
		t.Error("a message was sent")
	}
	if maxAnswer > defaults.DefaultMaxRecvMsgSize*2/3 {
		t.Errorf("answers may have %d bytes, containerd takes %d", maxAnswer, defaults.DefaultMaxRecvMsgSize)
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
