package referrers

import (
	"encoding/json"
	"strings"
	"testing"
)

// A program reads what was meant, and a terminal is not steered.
func TestPrintJSON(t *testing.T) {
	want := map[string]string{"a": "<ü>\x1b[2J\x7f\u009b31m\u202e\u00a0\U000e0001\U0001d11e\n\t\\"}
	var out strings.Builder
	if err := printJSON(&out, want); err != nil {
		t.Fatal(err)
	}
	if text := strings.ReplaceAll(out.String(), "\n", ""); printable(text) != text || !strings.Contains(text, "<ü>") {
		t.Errorf("it prints %q", text)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got["a"] != want["a"] {
		t.Errorf("it reads %q, %v", got, err)
	}
}
