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

// bounded returns the JSON of the explanation, or an errdefs.ErrResourceExhausted where it
// is over the limit.
func bounded(e *Explanation, limit int) ([]byte, error) {
	data, err := encode(e)
	if err == nil && len(data) > limit {
		return nil, fmt.Errorf("the explanation of image %s has %d MiB, over the limit of %d MiB; ask for one platform of the image: %w", e.Image, len(data)>>20, limit>>20, errdefs.ErrResourceExhausted)
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
