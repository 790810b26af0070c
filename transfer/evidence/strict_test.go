package evidence_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// An object may have so many names, with those that it lies in; objects beside each other do
// not count together.
func TestCheckJSONCountsNames(t *testing.T) {
	t.Parallel()
	object := func(n int) string {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf(`"%d":0`, i))
		}
		return "{" + strings.Join(names, ",") + "}"
	}
	for name, tc := range map[string]struct {
		data string
		ok   bool
	}{
		"as many as may be":          {object(65_536), true},
		"one more":                   {object(65_537), false},
		"many objects":               {"[" + strings.Repeat(object(60_000)+",", 3) + "0]", true},
		"one within another":         {`{"a":` + object(65_535) + `}`, true},
		"one within another, of one": {`{"a":` + object(65_536) + `}`, false},
		"after another":              {`{"a":` + object(60_000) + `,"b":` + object(60_000) + `}`, true},
	} {
		if err := evidence.CheckJSON([]byte(tc.data)); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzCheckJSON holds that what is accepted is JSON by RFC 7493, and the reverse.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{``, `1`, `{"a":[{"b":1,"b":2}]}`, `{} {}`, `"\ud800"`, `[1,2,{"a":"b","c":{}}]`, ` {"a":1} `, `{"a":1`, `nul`, `{"\u0061":1,"a":2}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		if got, want := evidence.CheckJSON([]byte(data)) == nil, jsontext.Value(data).IsValid(); got != want {
			t.Errorf("%q is accepted: %v, want %v", data, got, want)
		}
	})
}
