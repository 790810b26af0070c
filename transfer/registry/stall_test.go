package registry

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// TestReaderThatIsBusyIsNotTheStreamsFault has stores that take their time: a
// slow disk, another writer of the same content.
func TestReaderThatIsBusyIsNotTheStreamsFault(t *testing.T) {
	const stall = 500 * time.Millisecond
	data := []byte(strings.Repeat(blobText, 1<<15)) // more than buffers on the way hold
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(len(data))}
	for name, pauses := range map[string][]int64{ // after how many bytes
		"before it reads":         {0},
		"half way":                {desc.Size / 2},
		"after the first byte":    {1},
		"before it looks for EOF": {desc.Size},
		"again and again":         {0, 1, desc.Size / 2, desc.Size},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits
			s := hostile.New(t)
			s.On("/v2/test/app/blobs/"+desc.Digest.String(), hostile.Answer{Body: data})
			limits := quick
			limits.Stall, limits.StallBytes = stall, 1
			err := alone(t, s, limits).Blob(t.Context(), desc, func(in io.Reader) error {
				verifier, read := desc.Digest.Verifier(), int64(0)
				for _, at := range pauses {
					if _, err := io.CopyN(verifier, in, at-read); err != nil {
						return err
					}
					read = at
					time.Sleep(5 * stall / 2)
				}
				if _, err := io.Copy(verifier, in); err != nil {
					return err
				}
				if !verifier.Verified() {
					return errors.New("wrong bytes")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if got := len(s.Requests()); got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
		})
	}
}

// TestStreamThatIsReadMustDeliver has readers whose pauses must not save a stream
// that delivers nothing, or too little.
func TestStreamThatIsReadMustDeliver(t *testing.T) {
	whole := int64(len(blobText))
	for _, tc := range []struct {
		name   string
		answer hostile.Answer
		first  time.Duration // pause before the first read
		each   time.Duration // pause after each
	}{
		{"nothing", hostile.Answer{Announce: whole, Stall: true}, 0, 0},
		{"nothing, to a reader that is late", hostile.Answer{Announce: whole, Stall: true}, 2 * short, 0},
		{"a part, then nothing", hostile.Answer{Body: []byte(blobText[:8]), Announce: whole, Stall: true}, 0, 0},
		{"a part, then nothing, to a reader that is late", hostile.Answer{Body: []byte(blobText[:8]), Announce: whole, Stall: true}, 2 * short, short / 2},
		{"too little", hostile.Answer{Body: []byte(blobText), Drip: short / 2}, 0, 0},
		{"too little, to a reader that pauses", hostile.Answer{Body: []byte(blobText), Drip: short / 2}, 0, short / 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // each waits
			s := hostile.New(t)
			s.On("/v2/test/app/blobs/"+layer().Digest.String(), tc.answer)
			limits := quick
			limits.Stall, limits.StallBytes = short, 64
			// Where nothing else ends the stream, this does.
			ctx, cancel := context.WithTimeoutCause(t.Context(), 20*short, errors.New("the stream did not end"))
			defer cancel()
			read := int64(0)
			var waited time.Duration
			err := alone(t, s, limits).Blob(ctx, layer(), func(in io.Reader) error {
				time.Sleep(tc.first)
				for {
					start := time.Now()
					n, err := in.Read(make([]byte, 1024))
					waited += time.Since(start)
					read += int64(n)
					if err != nil {
						return err
					}
					time.Sleep(tc.each)
				}
			})
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "too slow") {
				t.Errorf("%v, want that it was too slow", err)
			}
			if waited < short*9/10 || waited > 10*short {
				t.Errorf("ended after %s of waiting, want about %s", waited, short)
			}
			if read >= whole {
				t.Errorf("all %d bytes came", read)
			}
			if got := len(s.Requests()); got != 1 {
				t.Errorf("%d requests, want 1: what is slow is not asked again", got)
			}
		})
	}
}
