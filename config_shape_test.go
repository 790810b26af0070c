package referrers

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// A table where none belongs is refused by its key: go-toml would take an empty one for
// no value at all, and panic on one within another.
func TestTableInPlaceOfAValue(t *testing.T) {
	for _, table := range []map[string]any{{}, {"a": int64(1)}, {"a": map[string]any{}}, {"a": map[string]any{"b": int64(1)}}} {
		for _, key := range []string{"timeout", "max_referrers", "max_blob_size", "max_total_size", "max_concurrent_downloads", "cosign_tags", "export", "push", "rules"} {
			wantRefused(t, key, map[string]any{key: table})
		}
		for _, key := range []string{"repositories", "artifact_types", "required", "depth", "on_error", "prune"} {
			for _, value := range []any{table, []any{table}, []any{[]any{table}}} {
				rule := map[string]any{"repositories": []any{"**"}}
				rule[key] = value
				wantRefused(t, key, map[string]any{"rules": []any{rule}})
			}
		}
	}
}

func wantRefused(t *testing.T, key string, table map[string]any) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%v: %v", table, r)
		}
	}()
	if _, err := parseConfig(table); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "key "+key) {
		t.Errorf("%v: the error is %v, want an errdefs.ErrInvalidArgument that names the key %s", table, err, key)
	}
}
