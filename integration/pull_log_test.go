package integration

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// A pull that looks for referrers writes one line with its outcome, in fields.
func TestPullLog(t *testing.T) {
	f := loadFixture(t)
	reg, failing := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	for _, repository := range []string{"app", "sboms", "strict", "unselected"} {
		if err := f.Push(testContext(t), reg, repository, "v1"); err != nil {
			t.Fatal(err)
		}
	}
	wholeFixture(f, t, failing)
	failing.Fail(registry.ReferrersFail(http.StatusForbidden))
	config := active(movers())
	config.Extra = "[debug]\n  format = \"json\"\n"
	d := startDaemon(t, config)

	for _, tc := range []struct {
		name, image string
		want        map[string]any    // fields and their values
		says        map[string]string // fields and what they hold
		fails       bool
		refused     string // what a line of its own says
	}{
		{name: "present", image: reg.Host + "/sboms:v1",
			want: map[string]any{"outcome": "present", "status": "present", "subjects": 3., "present": 3., "absent": 0., "unknown": 0., "truncated": 0.,
				"taken": 1., "bytes": written(f, fixture.SBOM), "selection": `rule 2, repository "**/sboms"`}},
		{name: "truncated", image: reg.Host + "/app:v1",
			want: map[string]any{"outcome": "truncated", "status": "truncated", "truncated": 1., "unknown": 0., "taken": 5., "limits": "max_blob_size=1"},
			says: map[string]string{"why": "max_blob_size"}},
		{name: "unknown", image: failing.Host + "/app:v1",
			want: map[string]any{"outcome": "unknown", "status": "unknown", "subjects": 2., "present": 0., "unknown": 2., "taken": 0., "bytes": 0.},
			says: map[string]string{"why": "HTTP 403"}},
		{name: "refused", image: reg.Host + "/strict:v1", fails: true,
			want:    map[string]any{"outcome": "refused", "status": "present", "unknown": 0., "taken": 0.},
			refused: "application/vnd.example.approval"},
		{name: "nothing to look for", image: reg.Host + "/unselected:v1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", tc.image)
			if (err != nil) != tc.fails {
				t.Fatal(err)
			}
			lines := slices.DeleteFunc(d.LogLines(`"referrers: gathered"`), func(l string) bool { return !strings.Contains(l, tc.image) })
			if tc.want == nil {
				if len(lines) > 0 {
					t.Errorf("the log has %q", lines)
				}
				return
			}
			if len(lines) != 1 {
				t.Fatalf("the log has %d lines of the pull, want 1: %q", len(lines), lines)
			}
			var fields map[string]any
			if err := json.Unmarshal([]byte(lines[0]), &fields); err != nil {
				t.Fatalf("%v in %s", err, lines[0])
			}
			tc.want["image"], tc.want["digest"], tc.want["level"] = tc.image, f.Get(fixture.Image).Digest.String(), "info"
			for name, want := range tc.want {
				if fields[name] != want {
					t.Errorf("field %s is %v, want %v", name, fields[name], want)
				}
			}
			for name, want := range tc.says {
				if got, _ := fields[name].(string); !strings.Contains(got, want) || len(got) > 310 {
					t.Errorf("field %s is %q, and does not say %q in short", name, got, want)
				}
			}
			for _, name := range []string{"why", "limits"} {
				_, wanted := tc.want[name]
				if _, ok := fields[name]; ok && !wanted && tc.says[name] == "" {
					t.Errorf("field %s is there: %v", name, fields[name])
				}
			}
			refused := slices.DeleteFunc(d.LogLines(`"referrers: image refused"`), func(l string) bool { return !strings.Contains(l, tc.image) })
			if said := len(refused) == 1 && strings.Contains(refused[0], tc.refused) && strings.Contains(refused[0], `"level":"warning"`); said != (tc.refused != "") || len(refused) > 1 {
				t.Errorf("the log says of a refusal %q, want one warning that says %q", refused, tc.refused)
			}
			for _, name := range slices.Sorted(maps.Keys(fields)) {
				if doc := readDoc(t, "metrics.md"); !slices.Contains([]string{"level", "msg", "time"}, name) && !strings.Contains(doc, "`"+name+"`") {
					t.Errorf("field %s is not documented", name)
				}
			}
		})
	}
}

// written is how many bytes a referrer adds to the store, beside the empty
// configuration that it shares with others.
func written(f *fixture.Fixture, name string) float64 {
	n := 0
	for _, dgst := range f.Content(name) {
		data, err := f.Blob(dgst)
		if err != nil {
			panic(err) // the layout is embedded: it is whole or broken for all
		}
		n += len(data)
	}
	return float64(n)
}
