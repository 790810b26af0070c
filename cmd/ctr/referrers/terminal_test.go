package referrers

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// However a stream is cut, no character that steers a terminal passes.
func TestTerminalWriter(t *testing.T) {
	text := "{\"a\": \"ü€𝄞\"}\t\x1b[2J\r\n\u009b\u202e\xff\xe2\x82"
	want := "{\"a\": \"ü€𝄞\"}\t?[2J?\n????"
	for size := 1; size <= len(text); size++ {
		var out bytes.Buffer
		w := &terminalWriter{w: &out}
		for rest := []byte(text); len(rest) > 0; {
			n, err := w.Write(rest[:min(size, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("cut in %d: %q, want %q", size, out.String(), want)
		}
	}
}

func TestIsTerminal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if isTerminal(f) || isTerminal(&bytes.Buffer{}) {
		t.Error("a file is taken for a terminal")
	}
}
