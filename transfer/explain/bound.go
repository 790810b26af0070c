package explain

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
)

// maxAnswer is how large the JSON of an Explanation may be: containerd's messages take
// 16 MiB. What a hostile registry can have a pull skip is bounded where it is recorded
// (package gather).
const maxAnswer = 8 << 20

// bounded returns the JSON of an answer, or an errdefs.ErrResourceExhausted where it is over
// the limit.
func bounded(answer any, limit int) ([]byte, error) {
	data, err := encode(answer)
	if err == nil && len(data) > limit {
		about := ""
		switch a := answer.(type) {
		case *Explanation:
			about = a.Image
		case *Verification:
			about = a.Image
		}
		return nil, fmt.Errorf("the answer about image %s has %d MiB, over the limit of %d MiB; ask for one platform of the image: %w", about, len(data)>>20, limit>>20, errdefs.ErrResourceExhausted)
	}
	return data, err
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
