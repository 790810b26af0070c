package referrers

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"

	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// load does with a table what the plugin does with it when it is initialized.
func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	table := map[string]any{}
	if err := toml.Unmarshal([]byte(text), &table); err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig(table)
	if err != nil {
		return nil, err
	}
	_, err = policy.New(c.Rules)
	return c, err
}

// The values are those that docs promise and `containerd config default` prints.
func TestDefaults(t *testing.T) {
	t.Parallel()
	printed, err := toml.Marshal(defaults())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"timeout":                  "30s",
		"max_referrers":            int64(100),
		"max_blob_size":            "32MiB",
		"max_total_size":           "128MiB",
		"max_concurrent_downloads": int64(3),
		"cosign_tags":              "auto",
		"export":                   true,
		"push":                     false,
		"gate":                     "enforce",
	}
	var got map[string]any
	if err := toml.Unmarshal(printed, &got); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("printed\n%s\nwant %v", printed, want)
	}
	for _, text := range []string{"", string(printed)} {
		c, err := load(t, text)
		if err != nil {
			t.Fatal(err)
		}
		if c.limits() != gather.DefaultLimits {
			t.Errorf("limits %+v, want %+v", c.limits(), gather.DefaultLimits)
		}
		if c.CosignTags != gather.CosignAuto || !c.Export || c.Push || c.Gate != gate.Enforce || len(c.Rules) > 0 || len(c.Local) > 0 {
			t.Errorf("parsed %+v", c)
		}
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	c, err := load(t, `
timeout = "1m30s"
push = true
max_referrers = 7
max_blob_size = "1GiB"
max_total_size = "1536 KiB"
max_concurrent_downloads = 5
cosign_tags = "never"
export = false
gate = "warn"

[local]
max_concurrent_downloads = 9

[[rules]]
repositories = ["a.test/**", "b.test/*"]
artifact_types = ["signatures", "!sboms"]
required = ["signatures"]
depth = 3
on_error = "fail"
prune = true

[[rules]]
repositories = ["**"]
`)
	if err != nil {
		t.Fatal(err)
	}
	limits := gather.Limits{Timeout: 90 * time.Second, MaxReferrers: 7, MaxBlobSize: 1 << 30, MaxTotalSize: 1536 << 10, MaxConcurrentDownloads: 5}
	if c.limits() != limits {
		t.Errorf("limits %+v, want %+v", c.limits(), limits)
	}
	if c.CosignTags != gather.CosignNever || c.Export || !c.Push || c.Gate != gate.Warn || c.Local["max_concurrent_downloads"] != int64(9) {
		t.Errorf("parsed %+v", c)
	}
	p, err := policy.New(c.Rules)
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]string{
		"b.test/app": `rule 1, repository "b.test/*": takes [signatures !sboms], requires [signatures], depth 3, on_error fail, prune`,
		"c.test/app": `rule 2, repository "**": takes [], requires [], depth 2, on_error warn`,
	} {
		s, err := p.Select(repository, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.String() != want {
			t.Errorf("%s: %s\nwant %s", repository, s, want)
		}
	}
}

// An operator has nothing but the message: it names the key and what to write.
func TestConfigRejects(t *testing.T) {
	t.Parallel()
	rule := func(lines ...string) string {
		return "[[rules]]\nrepositories = [\"**\"]\n" + strings.Join(lines, "\n")
	}
	for _, tc := range []struct{ name, table, key, remedy string }{
		{"timeout of zero", `timeout = "0s"`, `timeout = "0s"`, `a duration above zero, such as "30s"`},
		{"timeout below zero", `timeout = "-5s"`, `timeout = "-5s"`, "a duration above zero"},
		{"no referrers", `max_referrers = 0`, "max_referrers = 0", "a number above zero, such as 100"},
		{"fewer than no referrers", `max_referrers = -1`, "max_referrers = -1", "a number above zero"},
		{"blobs of nothing", `max_blob_size = "0MiB"`, `max_blob_size = "0MiB"`, `a size above zero, such as "32MiB"`},
		{"nothing in all", `max_total_size = "0B"`, `max_total_size = "0B"`, `a size above zero, such as "128MiB"`},
		{"no downloads", `max_concurrent_downloads = 0`, "max_concurrent_downloads = 0", "a number above zero, such as 3"},
		{"unknown cosign_tags", `cosign_tags = "sometimes"`, `cosign_tags = "sometimes"`, `"auto", "always" or "never"`},
		{"empty cosign_tags", `cosign_tags = ""`, `cosign_tags = ""`, `"auto", "always" or "never"`},

		{"a gate of no mode", `gate = "on"`, `gate = "on"`, `"enforce", "warn" or "off"`},
		{"an empty gate", `gate = ""`, `gate = ""`, `"enforce", "warn" or "off"`},
		{"a gate of another type", `gate = true`, `gate = true`, "a string"},
		{"unknown key", `timout = "5s"`, "unknown key timout: write one of cosign_tags, export, gate, local, max_blob_size, ", ", or remove it"},
		{"unknown keys", "timout = \"5s\"\nmax_size = 1\nrule = 1", "unknown key max_size, rule, timout: write one of", "or remove it"},
		{"unknown table", "[limits]\ntimeout = \"5s\"", "unknown key limits: write one of cosign_tags, ", ", or remove it"},
		// A warning would let unsigned images in.
		{"required misspelt", rule(`require = ["signatures"]`), "rule 1: unknown key require: write one of artifact_types, attested, deny, depth, on_error, prune, repositories, required, signed, verify, or remove it", "invalid argument"},
		{"a key of the plugin in a rule", rule(`timeout = "5s"`), "rule 1: unknown key timeout: write one of artifact_types, attested, deny, depth, on_error, prune, repositories, required, signed, verify, or remove it", "invalid argument"},

		{"rule without repositories", "[[rules]]\ndepth = 1", "rule 1: repositories", `"**" for all`},
		{"bad glob", "[[rules]]\nrepositories = [\"a.test/app:v1\"]", `rule 1: repositories: "a.test/app:v1"`, "without tag or digest"},
		{"bad glob of the second rule", rule() + "\n[[rules]]\nrepositories = [\"https://a.test\"]", `rule 2: repositories: "https://a.test"`, "leave it out"},
		{"bad type", rule(`artifact_types = ["signature"]`), `rule 1: artifact_types: "signature"`, "signatures, attestations, sboms, all"},
		{"bad required", rule(`required = ["vex"]`), `rule 1: required: "vex"`, "signatures, attestations, sboms, all"},
		{"denial required", rule(`required = ["!sboms"]`), `rule 1: required: "!sboms"`, "name what must be there"},
		{"bad depth", rule("depth = 9"), "rule 1: depth: 9", "write 1 to 8"},
		{"depth of zero", rule("depth = 1") + "\n" + rule("depth = 0"), "rule 2: key depth = 0", "write 1 to 8, or leave it out for 2; artifact_types = [] takes nothing"},
		{"empty on_error", rule(`on_error = ""`), `rule 1: key on_error = ""`, `write "warn" or "fail", or leave it out for "warn"`},
		{"bad on_error", rule(`on_error = "ignore"`), `rule 1: on_error: "ignore"`, `write "warn" or "fail"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, tc.table)
			wantInvalid(t, err, tc.key, tc.remedy)
		})
	}
}

func TestConfigRejectsOtherTypes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ table, want string }{
		{`max_referrers = "x"`, `key max_referrers = "x": write a number`},
		{`max_referrers = 1.5`, "key max_referrers = 1.5: write a number"},
		{`export = "yes"`, `key export = "yes": write true or false`},
		{`push = 1`, "key push = 1: write true or false"},
		{`cosign_tags = 1`, "key cosign_tags = 1: write a string"},
		{`timeout = 30`, `key timeout: "30" is no duration: write a number and a unit, such as "30s"`},
		{`timeout = "30"`, `"30" is no duration`},
		{`max_blob_size = 33554432`, `"33554432" is no size: write a whole number and B, KiB`},
		{`max_total_size = "128MB"`, `"128MB" is no size`},
		{`rules = "x"`, `key rules = "x": write [[…]] tables`},
		{`rules = [1]`, "key rules = [1]: write [[…]] tables"},
		{`timeout = ["30s"]`, "key timeout: "},
		{`max_blob_size = {a = 1}`, "key max_blob_size: "},
		{`Timeout = "5s"`, "unknown key Timeout: write"},
		{`Push = true`, "unknown key Push: write"},
		{"[[rules]]\nrepositories = [\"**\"]\nrequired = [\"signatures\"]\nRequired = []", "rule 1: unknown key Required: write"},
		{`local = 3`, "key local = 3: write a table"},
		{"[[rules]]\nrepositories = \"**\"", `rule 1: key repositories = "**": write an array of strings`},
		{"[[rules]]\nrepositories = [\"**\"]\ndepth = \"2\"", `rule 1: key depth = "2": write a number`},
		{"[[rules]]\nrepositories = [\"**\"]\nrequired = [1]", "rule 1: key required = [1]: write an array of strings"},
	} {
		t.Run(tc.table, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, tc.table)
			wantInvalid(t, err, tc.want)
		})
	}
}

func wantInvalid(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("%q is no errdefs.ErrInvalidArgument", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text string
		want size
		back string // "" where the text itself comes back
	}{
		{"1B", 1, ""},
		{"1023B", 1023, ""},
		{"1024B", 1 << 10, "1KiB"},
		{"1536KiB", 1536 << 10, ""},
		{"32MiB", 32 << 20, ""},
		{"32 MiB", 32 << 20, "32MiB"},
		{"1024MiB", 1 << 30, "1GiB"},
		{"007TiB", 7 << 40, "7TiB"},
		{"4194304TiB", 1 << 62, ""},
		{"0GiB", 0, "0B"},
	} {
		var s size
		if err := s.UnmarshalText([]byte(tc.text)); err != nil || s != tc.want {
			t.Errorf("%q: %d, %v; want %d", tc.text, s, err, tc.want)
		}
		if tc.back == "" {
			tc.back = tc.text
		}
		if s.String() != tc.back {
			t.Errorf("%q comes back as %q, want %q", tc.text, s, tc.back)
		}
	}
	for _, text := range []string{
		"", "MiB", "32", "32MB", "32mib", "32M", "1.5GiB", "-1MiB", "+1MiB", " 1MiB", "1MiB ", "1MiB\n", "0x10B", "1_000B",
		"4194305TiB", "999999999999999TiB", "9223372036854775808B",
	} {
		s := size(7)
		if err := s.UnmarshalText([]byte(text)); err == nil || s != 7 {
			t.Errorf("%q: %d, %v; want an error", text, s, err)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for _, want := range []time.Duration{time.Nanosecond, 250 * time.Millisecond, 30 * time.Second, 90 * time.Minute} {
		var d duration
		if err := d.UnmarshalText([]byte(want.String())); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %d, %v", want, d, err)
		}
	}
	for _, text := range []string{"", "30", "30 s", "1d", "half an hour", "9999999999h"} {
		d := duration(7)
		if err := d.UnmarshalText([]byte(text)); err == nil || d != 7 || !strings.Contains(err.Error(), `such as "30s"`) {
			t.Errorf("%q: %d, %v; want an error with a remedy", text, d, err)
		}
	}
}
