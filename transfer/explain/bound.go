package explain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// maxAnswer is how large the JSON of an Explanation may be. containerd's messages take
// 16 MiB; the thousands of referrers that a hostile registry can have a pull leave,
// with types that JSON escapes, take more.
const maxAnswer = 8 << 20

// maxNote is more than the note of a subject takes that some of its referrers are left
// out, with its comma.
const maxNote = 160

// bounded returns the JSON of the explanation. Where that is over the limit it leaves
// out referrers that were skipped, the last of the last subject first: those that bear on
// no status before others, and as few as it takes. Each subject that lacks some says
// how many. One that is still too large is errdefs.ErrResourceExhausted.
func bounded(e *Explanation, limit int) ([]byte, error) {
	data, err := encode(e)
	if err != nil || len(data) <= limit {
		return data, err
	}
	short := *e
	short.Subjects = slices.Clone(e.Subjects)
	c := &cutter{excess: len(data) - limit, dropped: make([]int, len(short.Subjects))}
	for _, droppable := range []func(outcome.Referrer) bool{
		func(r outcome.Referrer) bool { return r.Status == "" && r.Digest != "" },
		func(outcome.Referrer) bool { return true },
	} {
		for i := len(short.Subjects) - 1; i >= 0 && c.excess > 0; i-- {
			if err := c.cut(&short.Subjects[i], i, droppable); err != nil {
				return nil, err
			}
		}
	}
	for i, n := range c.dropped {
		if n > 0 {
			skipped := &short.Subjects[i].Skipped
			*skipped = append(*skipped, outcome.Referrer{Reason: fmt.Sprintf("%d more were not taken; one answer tells of as many as fit into %d MiB", n, limit>>20)})
		}
	}
	data, err = encode(&short)
	if err == nil && len(data) > limit {
		return nil, fmt.Errorf("the explanation of image %s has %d MiB without what is left, over the limit of %d MiB: %w", e.Image, len(data)>>20, limit>>20, errdefs.ErrResourceExhausted)
	}
	return data, err
}

// cutter leaves skipped referrers out until an explanation fits.
type cutter struct {
	excess  int   // bytes over the limit
	dropped []int // of each subject
}

// cut leaves out droppable referrers of subject number i, from the last.
func (c *cutter) cut(s *outcome.Subject, i int, droppable func(outcome.Referrer) bool) error {
	kept := []outcome.Referrer{}
	for _, r := range slices.Backward(s.Skipped) {
		if c.excess <= 0 || !droppable(r) {
			kept = append(kept, r)
			continue
		}
		entry, err := encode(r)
		if err != nil {
			return err
		}
		if c.dropped[i] == 0 {
			c.excess += maxNote
		}
		c.dropped[i]++
		c.excess -= len(entry) + len(",")
	}
	slices.Reverse(kept)
	s.Skipped = kept
	return nil
}

// encode is json.Marshal without the escapes for HTML, which are of no use here and
// make six bytes of one.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}
