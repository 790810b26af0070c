package referrers

import (
	"bytes"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable keeps text from the network from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// isTerminal reports whether a person may be reading.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// terminalWriter does what printable does to a stream; lines and tabs stay.
type terminalWriter struct {
	w    io.Writer
	rest []byte // the beginning of a rune whose end has not come yet
}

func (t *terminalWriter) Write(p []byte) (int, error) {
	data := append(t.rest, p...)
	var out bytes.Buffer
	for len(data) > 0 && utf8.FullRune(data) {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == '\n' || r == '\t':
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r):
			r = '?'
		}
		out.WriteRune(r)
		data = data[size:]
	}
	t.rest = bytes.Clone(data)
	if _, err := t.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends the stream; a rune that never ended is shown as one.
func (t *terminalWriter) Close() error {
	if len(t.rest) == 0 {
		return nil
	}
	_, err := t.w.Write([]byte("?"))
	return err
}
