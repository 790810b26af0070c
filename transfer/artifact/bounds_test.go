package artifact

import (
	"fmt"
	"maps"
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
		"layers":               {fill(`{"layers":[`, `{},`, `]}`), func(b []byte) { _, _ = Parse(b, manifestType) }},
		"annotations":          {[]byte(`{"annotations":` + annotations + `}`), func(b []byte) { _, _ = Parse(b, manifestType) }},
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
	if m, err := Parse(manifest(MaxAnnotations), manifestType); err != nil || len(m.Annotations) != 1 {
		t.Errorf("annotations at the limit: %v, %v", m, err)
	}
	if _, err := Parse(manifest(MaxAnnotations+1), manifestType); !errdefs.IsResourceExhausted(err) {
		t.Errorf("annotations over the limit: %v", err)
	}
}

// What a listing's entries say is held in memory. One that says too much says nothing,
// and not the half of it.
func TestTellingIsLimited(t *testing.T) {
	t.Parallel()
	predicate, content := Annotations[0], Annotations[1]
	for _, tc := range []struct {
		name      string
		predicate int // bytes
		other     int // bytes of an annotation that tells nothing
		told      bool
	}{
		{"at the limit", MaxTelling, 0, true},
		{"over the limit", MaxTelling + 1, 0, false},
		{"far over it", 60_000, 0, false},
		{"beside a long one that tells nothing", 10, MaxTelling + 1, true},
	} {
		for _, order := range []string{`{"other":%[3]q,%[1]q:%[2]q,%[4]q:"message-signature"}`, `{%[4]q:"message-signature",%[1]q:%[2]q,"other":%[3]q}`} {
			value := strings.Repeat("x", tc.predicate)
			annotations := fmt.Sprintf(order, predicate, value, strings.Repeat("y", tc.other), content)
			index, err := ParseIndex([]byte(`{"manifests":[{"annotations":` + annotations + `},{"size":7}]}`))
			if err != nil || len(index.Entries) != 2 || index.Entries[1].Size != 7 {
				t.Fatalf("%s: %+v, %v, want both entries", tc.name, index, err)
			}
			want := map[string]string{predicate: value, content: "message-signature"}
			if !tc.told {
				want = nil
			}
			if got := index.Entries[0].Annotations; !maps.Equal(got, want) {
				t.Errorf("%s: %d annotations are kept, want %d", tc.name, len(got), len(want))
			}
		}
	}
}
