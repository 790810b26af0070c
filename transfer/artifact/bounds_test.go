package artifact

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// Four mebibytes of JSON must not become a hundred of memory, wherever in it the
// sender puts its bytes.
func TestMemoryIsBounded(t *testing.T) {
	const size = 4 << 20
	fill := func(head, unit, tail string) []byte {
		return []byte(head + strings.TrimSuffix(strings.Repeat(unit, (size-len(head)-len(tail))/len(unit)), ",") + tail)
	}
	var keys strings.Builder
	for i := 0; keys.Len() < size-100; i++ {
		fmt.Fprintf(&keys, `"%x":"",`, i)
	}
	annotations := `{` + strings.TrimSuffix(keys.String(), ",") + `}`
	for name, tc := range map[string]struct {
		data  []byte
		parse func([]byte)
	}{
		"entries":              {fill(`{"manifests":[`, `{},`, `]}`), func(b []byte) { _, _ = ParseIndex(b) }},
		"urls of an entry":     {fill(`{"manifests":[{"urls":[`, `"",`, `]}]}`), func(b []byte) { _, _ = ParseIndex(b) }},
		"annotations of entry": {[]byte(`{"manifests":[{"annotations":` + annotations + `}]}`), func(b []byte) { _, _ = ParseIndex(b) }},
		"layers":               {fill(`{"layers":[`, `{},`, `]}`), func(b []byte) { _, _ = Parse(b, manifestType, 32) }},
		"annotations":          {[]byte(`{"annotations":` + annotations + `}`), func(b []byte) { _, _ = Parse(b, manifestType, 32) }},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			tc.parse(tc.data)
			runtime.ReadMemStats(&after)
			// All that was allocated, in passing or to stay.
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 48<<20 {
				t.Errorf("%d KiB were allocated for %d KiB", grown>>10, len(tc.data)>>10)
			}
		})
	}
}

func TestAnnotationsAreLimited(t *testing.T) {
	t.Parallel()
	manifest := func(n int) []byte {
		return []byte(`{"annotations":{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}}`)
	}
	if m, err := Parse(manifest(MaxAnnotations), manifestType, 32); err != nil || len(m.Annotations) != 1 {
		t.Errorf("annotations at the limit: %v, %v", m, err)
	}
	if _, err := Parse(manifest(MaxAnnotations+1), manifestType, 32); !errdefs.IsResourceExhausted(err) {
		t.Errorf("annotations over the limit: %v", err)
	}
}
