package outcome

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// The status of an image is the worst among its own subjects: what is not known of a
// referrer's referrers says nothing of the image.
func TestStatus(t *testing.T) {
	t.Parallel()
	image := func(status labels.Status) Subject { return Subject{Image: true, Status: status} }
	below := func(status labels.Status) Subject { return Subject{Status: status} }
	for _, tc := range []struct {
		name string
		out  Outcome
		want labels.Status
	}{
		{"nothing was asked about", Outcome{}, ""},
		{"absent", Outcome{Subjects: []Subject{image(labels.Absent), image(labels.Absent)}}, labels.Absent},
		{"present at one", Outcome{Subjects: []Subject{image(labels.Absent), image(labels.Present), image(labels.Absent)}}, labels.Present},
		{"truncated at one", Outcome{Subjects: []Subject{image(labels.Present), image(labels.Truncated), image(labels.Absent)}}, labels.Truncated},
		{"unknown at one", Outcome{Subjects: []Subject{image(labels.Truncated), image(labels.Unknown), image(labels.Present)}}, labels.Unknown},
		{"unknown at a referrer", Outcome{Subjects: []Subject{image(labels.Present), below(labels.Unknown)}}, labels.Present},
		{"referrers alone", Outcome{Subjects: []Subject{below(labels.Unknown)}}, ""},
		{"manifests that were not asked about", Outcome{Unasked: 1, Subjects: []Subject{image(labels.Present)}}, labels.Truncated},
		{"and an unknown one", Outcome{Unasked: 1, Subjects: []Subject{image(labels.Unknown)}}, labels.Unknown},
		{"and no other", Outcome{Unasked: 1}, labels.Truncated},
	} {
		if got := tc.out.Status(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		out  Outcome
		want map[Limit]int
	}{
		{"none", Outcome{Subjects: []Subject{{
			Answers: []Answer{{Status: labels.Unknown}}, Taken: []Referrer{{Digest: "a"}}, Skipped: []Referrer{{Digest: "b", Status: labels.Unknown}},
		}}}, map[Limit]int{}},
		{"time, once", Outcome{TimedOut: true, Subjects: []Subject{{}, {}}}, map[Limit]int{LimitTimeout: 1}},
		{"subjects, each", Outcome{Unasked: 7}, map[Limit]int{LimitSubjects: 7}},
		{"answers and referrers of every subject", Outcome{Subjects: []Subject{
			{Answers: []Answer{{Limit: LimitListing}, {}, {Limit: LimitManifest}}, Skipped: []Referrer{{Limit: LimitReferrers}, {Limit: LimitReferrers}, {}}},
			{Answers: []Answer{{Limit: LimitListing}}, Skipped: []Referrer{{Limit: LimitBlobSize}, {Limit: LimitManifest}}},
		}}, map[Limit]int{LimitListing: 2, LimitManifest: 2, LimitReferrers: 2, LimitBlobSize: 1}},
		{"subjects by both ways", Outcome{Unasked: 2, Subjects: []Subject{{Skipped: []Referrer{{Limit: LimitSubjects}}}}}, map[Limit]int{LimitSubjects: 3}},
		{"time by both ways", Outcome{TimedOut: true, Subjects: []Subject{{Skipped: []Referrer{{Limit: LimitTimeout}}}}}, map[Limit]int{LimitTimeout: 2}},
		{"what was taken has no limit", Outcome{Subjects: []Subject{{Taken: []Referrer{{Limit: LimitPull}}}}}, map[Limit]int{}},
	} {
		if got := tc.out.Refusals(); !maps.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// Doubts say what left the status open, and nothing else.
func TestDoubts(t *testing.T) {
	t.Parallel()
	dgst := digest.FromString("referrer")
	s := Subject{
		Status: labels.Unknown,
		Answers: []Answer{
			{Host: "a.test", Request: "referrers", Code: 200, Status: labels.Present, Detail: "2 listed"},
			{Host: "b.test", Request: "referrers", Code: 404, Detail: "no such endpoint"},
			{Host: "c.test", Request: "tag x", Code: 404, Status: labels.Absent},
			{Host: "d.test", Request: "referrers, page 2", Code: 503, Status: labels.Unknown, Detail: "Service Unavailable"},
			{Host: "e.test", Request: "referrers", Status: labels.Unknown},
			{Host: "f.test", Request: "referrers", Code: 200, Status: labels.Truncated, Limit: LimitListing, Detail: "more than 16 pages"},
		},
		Taken: []Referrer{{Digest: dgst, Reason: "rule 1"}},
		Skipped: []Referrer{
			{Digest: dgst, Reason: "its type is not wanted"},
			{Digest: dgst, Reason: "404 Not Found", Status: labels.Unknown},
			{Digest: dgst, Reason: "over the limit", Status: labels.Truncated, Limit: LimitReferrers},
			{Reason: "a request failed", Status: labels.Unknown},
		},
	}
	want := []string{
		"d.test: referrers, page 2: unknown (HTTP 503): Service Unavailable",
		"e.test: referrers: unknown",
		"f.test: referrers: truncated (HTTP 200): more than 16 pages",
		dgst.String() + ": 404 Not Found",
		dgst.String() + ": over the limit",
		"a request failed",
	}
	if got := s.Doubts(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := (Subject{Answers: s.Answers[:3], Taken: s.Taken, Skipped: s.Skipped[:1]}).Doubts(); len(got) != 0 {
		t.Errorf("of what is known: %q", got)
	}
}

func TestArtifacts(t *testing.T) {
	t.Parallel()
	r := Referrer{Digest: digest.FromString("x"), ArtifactType: "text/sbom", Annotations: map[string]string{"a": "b"}, Hollow: true, Size: 7}
	want := []artifact.Referrer{{ArtifactType: "text/sbom", Annotations: map[string]string{"a": "b"}, Hollow: true}, {}}
	if got := Artifacts([]Referrer{r, {}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What a registry sends is cut between its characters.
func TestShorten(t *testing.T) {
	t.Parallel()
	for n := range 4 { // bytes before a text of characters of three bytes each
		text := "xxx"[:n]
		for len(text) < 1<<10 {
			text += "€"
		}
		if got := Shorten(text); len(got) > 310 || !utf8.ValidString(got) || got[len(got)-len("…"):] != "…" {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	}
	if got := Shorten("short"); got != "short" {
		t.Errorf("%q", got)
	}
}

// Programs read these keys, in the answer of `ctr referrers explain` and in that of
// fetch: others may come, with a case in testdata/explanation.json, and none may go.
func TestJSONKeys(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("..", "testdata", "explanation.json"))
	if err != nil {
		t.Fatal(err)
	}
	type object map[string]json.RawMessage
	var explanation struct {
		Subjects []object `json:"subjects"`
	}
	if err := json.Unmarshal(data, &explanation); err != nil {
		t.Fatal(err)
	}
	documented := map[string][]object{"Subject": explanation.Subjects}
	for _, s := range explanation.Subjects {
		for key, of := range map[string]string{"answers": "Answer", "taken": "Referrer", "left": "Referrer"} {
			var list []object
			if err := json.Unmarshal(s[key], &list); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			documented[of] = append(documented[of], list...)
		}
	}
	for _, tc := range []struct {
		of     reflect.Type
		want   []string
		always []string // of the zero value, too
	}{
		{reflect.TypeFor[Subject](), []string{"answers", "digest", "image", "left", "platform", "status", "stored", "taken"}, []string{"answers", "digest", "image", "left", "status", "stored", "taken"}},
		{reflect.TypeFor[Referrer](), []string{"artifactType", "digest", "limit", "reason", "status", "stored", "via"}, []string{"reason"}},
		{reflect.TypeFor[Answer](), []string{"code", "detail", "host", "limit", "mirror", "request", "status", "via"}, []string{"host", "request"}},
	} {
		t.Run(tc.of.Name(), func(t *testing.T) {
			t.Parallel()
			full := reflect.New(tc.of).Elem()
			for i := range full.NumField() {
				fill(t, full.Field(i))
			}
			if got := keys(t, full.Interface()); !slices.Equal(got, tc.want) {
				t.Errorf("keys %q, want %q", got, tc.want)
			}
			if got := keys(t, reflect.Zero(tc.of).Interface()); !slices.Equal(got, tc.always) {
				t.Errorf("keys of the zero value %q, want %q", got, tc.always)
			}
			found := map[string]bool{}
			for _, o := range documented[tc.of.Name()] {
				for key := range o {
					found[key] = true
				}
			}
			if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, tc.want) {
				t.Errorf("testdata/explanation.json has the keys %q, want %q", got, tc.want)
			}
		})
	}
}

// fill sets a field to what is not its zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"a": "b"}))
	default:
		t.Fatalf("the test fills no %s", v.Type())
	}
}

func keys(t *testing.T, v any) []string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(data, &o); err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(o))
}
