package referrers

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// Config is the plugin's table in containerd's config.toml,
// [plugins."io.containerd.transfer.v1.referrers"]. docs/configuration.md says
// what each key does.
type Config struct {
	// Timeout is the longest a pull waits for referrers once the image itself
	// is complete. Default 30s; must be positive.
	Timeout duration `toml:"timeout"`
	// MaxReferrers is how many are taken for one subject, counted after the
	// type filter. Default 100; must be positive.
	MaxReferrers int `toml:"max_referrers"`
	// MaxBlobSize is the largest blob that is taken. Default 32MiB; must be
	// positive.
	MaxBlobSize size `toml:"max_blob_size"`
	// MaxTotalSize is how much one pull may take in all. Default 128MiB; must
	// be positive.
	MaxTotalSize size `toml:"max_total_size"`
	// MaxConcurrentDownloads is how many manifests and blobs of referrers one
	// pull fetches at a time, apart from the image's own. Default 3; must be
	// positive.
	MaxConcurrentDownloads int `toml:"max_concurrent_downloads"`
	// CosignTags says when cosign's own tags are asked for: "auto" (default),
	// "always" or "never".
	CosignTags gather.CosignTags `toml:"cosign_tags"`
	// Export carries referrers in archives. Default true.
	Export bool `toml:"export"`
	// Push carries referrers on every push. Default false: then a push carries
	// them where its client selects them.
	Push bool `toml:"push"`
	// Gate says what becomes of a container whose image does not verify when it is
	// created: "enforce" (default), "warn" or "off".
	Gate gate.Mode `toml:"gate"`
	// Rules are the policy; the first whose repositories match decides. None
	// at all stand for one that takes signatures and attestations from
	// everywhere.
	Rules []policy.Rule `toml:"rules"`
	// Trust are whom rules may trust, by the names that they go by there.
	Trust map[string]trust.Config `toml:"trust"`
	// Local are the settings of the wrapped local transfer plugin, under its
	// own names; they are decoded onto its own configuration.
	Local map[string]any `toml:"local"`
}

// defaults are what `containerd config default` prints. They are a map, since
// containerd decodes a plugin's struct leniently: a typo in "required" would be
// a warning, and let unsigned images in. The map takes every key as it is
// written, and parseConfig is strict.
func defaults() map[string]any {
	d := gather.DefaultLimits
	return map[string]any{
		"timeout":                  d.Timeout.String(),
		"max_referrers":            d.MaxReferrers,
		"max_blob_size":            size(d.MaxBlobSize).String(),
		"max_total_size":           size(d.MaxTotalSize).String(),
		"max_concurrent_downloads": d.MaxConcurrentDownloads,
		"cosign_tags":              string(gather.CosignAuto),
		"export":                   true,
		"push":                     false,
		"gate":                     string(gate.Enforce),
	}
}

// parseConfig decodes a table strictly. The error is
// errdefs.ErrInvalidArgument, names the key and says what to write instead.
func parseConfig(table map[string]any) (*Config, error) {
	all := defaults()
	maps.Copy(all, table)
	var c Config
	table, err := decode(all, &c)
	if err != nil {
		return nil, err
	}
	if err := checkWritten(table["rules"]); err != nil {
		return nil, err
	}
	for _, check := range []struct {
		key string
		ok  bool
		how string
	}{
		{"timeout", c.Timeout > 0, `a duration above zero, such as "30s"`},
		{"max_referrers", c.MaxReferrers > 0, "a number above zero, such as 100"},
		{"max_blob_size", c.MaxBlobSize > 0, `a size above zero, such as "32MiB"`},
		{"max_total_size", c.MaxTotalSize > 0, `a size above zero, such as "128MiB"`},
		{"max_concurrent_downloads", c.MaxConcurrentDownloads > 0, "a number above zero, such as 3"},
		{"cosign_tags", slices.Contains([]gather.CosignTags{gather.CosignAuto, gather.CosignAlways, gather.CosignNever}, c.CosignTags), `"auto", "always" or "never"`},
		{"gate", slices.Contains(gate.Modes, c.Gate), `"enforce", "warn" or "off"`},
	} {
		if !check.ok {
			return nil, badValue(check.key, table[check.key], check.how)
		}
	}
	return &c, nil
}

// checkWritten refuses values that mean "left out" in a [policy.Rule] but were
// written: depth = 0 would follow referrers two levels deep, which nobody means.
func checkWritten(rules any) error {
	list, _ := rules.([]any)
	for i, r := range list {
		rule := r.(map[string]any)
		if err := checkEntries(rule); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
		for key, value := range rule {
			switch {
			case key == "verify" && value == "":
				return fmt.Errorf("rule %d: %w", i+1, badValue(key, value, fmt.Sprintf("%q or %q, or leave it out to verify nothing", policy.VerifyEnforce, policy.VerifyWarn)))
			case key == "depth" && value == int64(0):
				return fmt.Errorf("rule %d: %w", i+1, badValue(key, value, fmt.Sprintf("1 to %d, or leave it out for %d; artifact_types = [] takes nothing", policy.MaxDepth, policy.DefaultDepth)))
			case key == "on_error" && value == "":
				return fmt.Errorf("rule %d: %w", i+1, badValue(key, value, fmt.Sprintf("%q or %q, or leave it out for %[1]q", policy.Warn, policy.Fail)))
			}
		}
	}
	return nil
}

// checkEntries refuses values in the entries of signed and attested that mean "left out".
func checkEntries(rule map[string]any) error {
	for _, key := range []string{"signed", "attested"} {
		list, _ := rule[key].([]any)
		for i, e := range list {
			entry := e.(map[string]any)
			if entry["at_least"] == int64(0) {
				return fmt.Errorf("%s %d: %w", key, i+1, badValue("at_least", int64(0), "1 or more, or leave it out for 1"))
			}
			conditions, _ := entry["where"].([]any)
			for n, c := range conditions {
				for _, op := range []string{"matches", "one_of"} {
					if v, ok := c.(map[string]any)[op]; ok && (v == "" || reflect.ValueOf(v).Len() == 0) {
						return fmt.Errorf("%s %d: where %d: %w", key, i+1, n+1, badValue(op, v, "what the value may be, or leave it out"))
					}
				}
			}
		}
	}
	return nil
}

func (c *Config) limits() gather.Limits {
	return gather.Limits{
		Timeout:                time.Duration(c.Timeout),
		MaxReferrers:           c.MaxReferrers,
		MaxBlobSize:            int64(c.MaxBlobSize),
		MaxTotalSize:           int64(c.MaxTotalSize),
		MaxConcurrentDownloads: c.MaxConcurrentDownloads,
	}
}

// duration is a time.Duration that is written as Go prints it.
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration: write a number and a unit, such as \"30s\" or \"1m30s\"", text)
	}
	*d = duration(parsed)
	return nil
}

// size is a number of bytes that is written with a binary unit.
type size int64

var sizePattern = regexp.MustCompile(`^([0-9]{1,15})\s*(B|KiB|MiB|GiB|TiB)$`)

var sizeUnits = map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	m := sizePattern.FindStringSubmatch(string(text))
	if m == nil {
		return fmt.Errorf("%q is no size: write a whole number and B, KiB, MiB, GiB or TiB, such as \"32MiB\"", text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if unit := sizeUnits[m[2]]; err == nil && n <= (1<<62)/unit {
		*s = size(n * unit)
		return nil
	}
	return fmt.Errorf("%q is more than can be counted: write a smaller size, such as \"32MiB\"", text)
}

// String returns the size in the largest unit that keeps it whole.
func (s size) String() string {
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if u := sizeUnits[unit]; s != 0 && int64(s)%u == 0 {
			return strconv.FormatInt(int64(s)/u, 10) + unit
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}
