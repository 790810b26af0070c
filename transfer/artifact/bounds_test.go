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
	names := fields(size / len(`"12345":0,`))
	annotations := `{` + names + `}`
	index := func(b []byte) { _, _ = ParseIndex(b) }
	manifest := func(b []byte) { _, _ = Parse(b, manifestType) }
	for name, tc := range map[string]struct {
		data  []byte
		parse func([]byte)
	}{
		"entries":                      {fill(`{"manifests":[`, `{},`, `]}`), index},
		"urls of an entry":             {fill(`{"manifests":[{"urls":[`, `"",`, `]}]}`), index},
		"annotations of entry":         {[]byte(`{"manifests":[{"annotations":` + annotations + `}]}`), index},
		"layers":                       {fill(`{"layers":[`, `{},`, `]}`), manifest},
		"members of the document":      {[]byte(`{` + names + `,"manifests":[]}`), index},
		"members of a manifest":        {[]byte(`{` + names + `}`), manifest},
		"members of an unknown member": {[]byte(`{"x":{` + names + `},"manifests":[]}`), index},
		"members of an entry":          {[]byte(`{"manifests":[{` + names + `}]}`), index},
		"members of a platform":        {[]byte(`{"config":{"platform":{` + names + `}}}`), manifest},
		"members of entries":           {fill(`{"manifests":[`, `{`+fields(maxMembers)+`},`, `]}`), index},
		"members of many levels":       {[]byte(`{"x":` + levels(9000, size) + `}`), manifest},
		"a million members, nested":    {fill(`{"x":[`, `{"a":{},"b":{}},`, `]}`), manifest},
		"annotations of layer":         {[]byte(`{"layers":[{"annotations":` + annotations + `}]}`), manifest},
		"annotations":                  {[]byte(`{"annotations":` + annotations + `}`), manifest},
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

// levels makes so many objects within each other, each of which has names that are open
// while those beneath are read: so many bytes in all.
func levels(depth, size int) string {
	var b strings.Builder
	name := 0
	for range depth {
		b.WriteString("{")
		for start := b.Len(); b.Len()-start < size/depth-10; name++ {
			fmt.Fprintf(&b, `"%x":"",`, name)
		}
		b.WriteString(`"":`)
	}
	return b.String() + "0" + strings.Repeat("}", depth)
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
