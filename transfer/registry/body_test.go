package registry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

func compress(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	if _, err := zw.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// zstdBomb is a frame of 32 KiB that asks for a window of 512 MiB (RFC 8878,
// section 3.1.1.1.2).
func zstdBomb() []byte {
	const exponent = 29 - 10 // of the window's size
	frame := []byte{0x28, 0xB5, 0x2F, 0xFD, 0x00, exponent << 3}
	return append(frame, make([]byte, 32<<10-len(frame))...)
}

func TestBodyEncodings(t *testing.T) {
	text := []byte(strings.Repeat("listing ", 1<<10))
	encoded := func(encoding string, body []byte) hostile.Answer {
		return hostile.Answer{Body: body}.With("Content-Encoding", encoding)
	}
	packed := compress(t, text)
	for _, tc := range []struct {
		name   string
		answer hostile.Answer
		ok     bool
	}{
		{"none", hostile.Answer{Body: text}, true},
		{"identity", encoded("identity", text), true},
		{"gzip", encoded("gzip", packed), true},
		{"gzip under its old name", encoded("x-gzip", packed), true},
		{"gzip in upper case", encoded("GZIP", packed), true},
		{"gzip of unannounced length", hostile.Answer{Body: packed, Announce: -1}.With("Content-Encoding", "gzip"), true},
		{"gzip that is none", encoded("gzip", text), false},
		{"gzip cut short", encoded("gzip", packed[:len(packed)/2]), false},
		{"gzip with a wrong sum", encoded("gzip", append(bytes.Clone(packed[:len(packed)-8]), make([]byte, 8)...)), false},
		{"zstd", encoded("zstd", zstdBomb()), false},
		{"brotli", encoded("br", text), false},
		{"deflate", encoded("deflate", text), false},
		{"two layers", encoded("gzip, gzip", compress(t, packed)), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			s.On("/a", tc.answer)
			a, err := fetch(t, alone(t, s, quick), "/a")
			if tc.ok && (err != nil || !bytes.Equal(a.Body, text)) {
				t.Errorf("%v, want the text", err)
			}
			if !tc.ok && (err == nil || len(a.Body) > 0) {
				t.Errorf("%v and %d bytes, want an error and none", err, len(a.Body))
			}
			if got := len(s.Requests()); got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
		})
	}
}

func TestBodiesOverTheLimit(t *testing.T) {
	zeros := make([]byte, 1<<20)
	for _, tc := range []struct {
		name   string
		answer hostile.Answer
	}{
		{"Content-Length over the limit", hostile.Answer{Announce: artifact.MaxManifestSize + 1, Stall: true}},
		{"Content-Length of 2^62", hostile.Answer{Announce: 1 << 62, Stall: true}},
		{"endless body", hostile.Answer{Body: zeros, Endless: true}},
		{"one byte too many", hostile.Answer{Body: make([]byte, artifact.MaxManifestSize+1), Announce: -1}},
		// Members of a gzip stream may follow each other: 256 MiB in 256 KiB.
		{"gzip bomb", hostile.Answer{Body: bytes.Repeat(compress(t, zeros), 256)}.With("Content-Encoding", "gzip")},
		{"endless gzip", hostile.Answer{Body: compress(t, zeros), Endless: true}.With("Content-Encoding", "gzip")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			s.On("/a", tc.answer)
			r := alone(t, s, quick)
			var err error
			used := allocated(func() { _, err = fetch(t, r, "/a") })
			if !errors.Is(err, ErrTooLarge) || !errdefs.IsResourceExhausted(err) {
				t.Errorf("%v, want ErrTooLarge", err)
			}
			// A growing buffer is allocated several times over.
			if used > 16*artifact.MaxManifestSize {
				t.Errorf("allocated %d MiB for an answer of at most %d", used>>20, artifact.MaxManifestSize>>20)
			}
			if got := len(s.Requests()); got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
		})
	}
}

func TestZstdIsRefusedBeforeItsWindowIsAllocated(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Answer{Body: zstdBomb()}.With("Content-Encoding", "zstd"))
	r := alone(t, s, quick)
	var err error
	used := allocated(func() { _, err = fetch(t, r, "/a") })
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v, want errdefs.ErrInvalidArgument", err)
	}
	if used > artifact.MaxManifestSize {
		t.Errorf("allocated %d KiB for an answer of 32", used>>10)
	}
}

// allocated returns how many bytes the process allocated while f ran, those that
// were freed included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestBodyOfExactlyTheLimit(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Answer{Body: make([]byte, artifact.MaxManifestSize)})
	if a, err := fetch(t, alone(t, s, quick), "/a"); err != nil || len(a.Body) != artifact.MaxManifestSize {
		t.Errorf("%v, want all bytes", err)
	}
}

func TestBodyAtOneByteASecondIsGivenUp(t *testing.T) {
	for name, answer := range map[string]hostile.Answer{
		"drips":                 {Body: make([]byte, 100), Drip: time.Second},
		"stops":                 {Body: make([]byte, 100), Announce: 200, Stall: true},
		"drips, gzip-encoded":   hostile.Answer{Body: compress(t, make([]byte, 100)), Drip: time.Second}.With("Content-Encoding", "gzip"),
		"stops before a byte":   {Announce: 200, Stall: true},
		"of unannounced length": {Body: make([]byte, 100), Announce: -1, Stall: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.New(t)
			s.On("/a", answer)
			limits := quick
			limits.Request = short
			start := time.Now()
			_, err := fetch(t, alone(t, s, limits), "/a")
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no body within 200ms") {
				t.Errorf("%v, want that the body did not come in time", err)
			}
			if took := time.Since(start); took < short || took > 20*short {
				t.Errorf("returned after %s, want about %s", took, short)
			}
			if got := len(s.Requests()); got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
		})
	}
}

func TestBodyOfAnErrorIsNotKept(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Answer{Code: 404, Body: []byte("<html>"), Announce: -1})
	s.On("/b", hostile.Answer{Code: 404, Body: make([]byte, 1<<20), Endless: true})
	for _, path := range []string{"/a", "/b"} {
		a, err := fetch(t, alone(t, s, quick), path)
		if err != nil || a.Code != 404 || a.Body != nil {
			t.Errorf("%s: %v, want a 404 without a body", path, err)
		}
	}
}
