package registry

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

const blobText = "a signature, say"

func layer() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(blobText), Size: int64(len(blobText))}
}

// blob reads a blob as a store would, and returns what came and how often its
// use was called.
func blob(t *testing.T, r *Repository, desc ocispec.Descriptor) (data []byte, calls int, err error) {
	t.Helper()
	err = r.Blob(t.Context(), desc, func(in io.Reader) error {
		calls++
		var err error
		if data, err = io.ReadAll(in); err != nil {
			return err
		}
		return artifact.Verify(data, desc)
	})
	return data, calls, err
}

func TestBlob(t *testing.T) {
	body := []byte(blobText)
	for _, tc := range []struct {
		name     string
		answers  []hostile.Answer
		want     func(error) bool // nil: none
		calls    int
		requests int
	}{
		{"honest", []hostile.Answer{{Body: body}}, nil, 1, 1},
		{"without Content-Length", []hostile.Answer{{Body: body, Announce: -1}}, nil, 1, 1},
		{"503, then honest", []hostile.Answer{hostile.Status(503), {Body: body}}, nil, 1, 2},
		{"breaks off, then honest", []hostile.Answer{{Body: body[:4], Announce: int64(len(body))}, {Body: body}}, nil, 2, 2},
		{"breaks off each time", []hostile.Answer{{Body: body[:4], Announce: int64(len(body))}}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }, 3, 3},
		{"more announced", []hostile.Answer{{Body: append(body, '!')}}, errdefs.IsFailedPrecondition, 0, 1},
		{"less announced", []hostile.Answer{{Body: body[1:]}}, errdefs.IsFailedPrecondition, 0, 1},
		{"10 GiB announced", []hostile.Answer{{Announce: 10 << 30, Stall: true}}, errdefs.IsFailedPrecondition, 0, 1},
		{"wrong bytes of the right length", []hostile.Answer{{Body: []byte(strings.ToUpper(blobText))}}, errdefs.IsFailedPrecondition, 1, 1},
		{"encoded", []hostile.Answer{hostile.Answer{Body: body}.With("Content-Encoding", "gzip")}, errdefs.IsInvalidArgument, 0, 1},
		{"said to be identity", []hostile.Answer{hostile.Answer{Body: body}.With("Content-Encoding", "Identity")}, nil, 1, 1},
		{"404", []hostile.Answer{hostile.Status(404)}, errdefs.IsNotFound, 0, 1},
		{"206 that nobody asked for", []hostile.Answer{{Code: 206, Body: body}}, errdefs.IsUnavailable, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			s.On("/v2/test/app/blobs/"+layer().Digest.String(), tc.answers...)
			data, calls, err := blob(t, alone(t, s, quick), layer())
			if tc.want == nil && (err != nil || string(data) != blobText) || tc.want != nil && !tc.want(err) {
				t.Errorf("%q, %v", data, err)
			}
			if calls != tc.calls {
				t.Errorf("used %d times, want %d", calls, tc.calls)
			}
			if got := len(s.Requests()); got != tc.requests {
				t.Errorf("%d requests, want %d", got, tc.requests)
			}
		})
	}
}

func TestBlobGoesOnToTheNextHost(t *testing.T) {
	mirror, upstream := hostile.New(t), hostile.New(t)
	path := "/v2/test/app/blobs/" + layer().Digest.String()
	mirror.On(path, hostile.Answer{Body: []byte(strings.ToUpper(blobText))})
	upstream.On(path, hostile.Answer{Body: []byte(blobText)})
	r := newRepository(t, upstream.Host(), quick, mirror.RegistryHost(pull), upstream.RegistryHost(pullResolve))
	if data, calls, err := blob(t, r, layer()); err != nil || string(data) != blobText || calls != 2 {
		t.Errorf("%q, %d calls, %v, want the registry's blob after the mirror's lie", data, calls, err)
	}
}

// A blob is a blob whatever type its descriptor claims, so that one referrer cannot spoil
// what another names as well.
func TestBlobsOfAnyTypeAreAskedForAsBlobs(t *testing.T) {
	for _, mediaType := range []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageConfig, "application/vnd.example"} {
		s, desc := hostile.New(t), layer()
		desc.MediaType = mediaType
		s.On("/v2/test/app/blobs/"+desc.Digest.String(), hostile.Answer{Body: []byte(blobText)})
		if _, _, err := blob(t, alone(t, s, quick), desc); err != nil {
			t.Errorf("%s: %v", mediaType, err)
		}
	}
}

func TestBlobAtOneByteASecondIsGivenUp(t *testing.T) {
	s := hostile.New(t)
	s.On("/v2/test/app/blobs/"+layer().Digest.String(), hostile.Answer{Body: []byte(blobText), Drip: time.Second})
	limits := quick
	limits.Stall = short
	start := time.Now()
	data, calls, err := blob(t, alone(t, s, limits), layer())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("%v, want that it was too slow", err)
	}
	if took := time.Since(start); took < short || took > 20*short {
		t.Errorf("returned after %s, want about %s", took, short)
	}
	if calls != 1 || len(s.Requests()) != 1 || len(data) >= len(blobText) {
		t.Errorf("%d uses, %d requests, %d bytes: what is slow is not asked again", calls, len(s.Requests()), len(data))
	}
}

func TestStreamThatStopsAfterAGoodStartEnds(t *testing.T) {
	s := hostile.New(t)
	s.On("/v2/test/app/blobs/"+layer().Digest.String(), hostile.Answer{Body: []byte(blobText[:8]), Announce: layer().Size, Stall: true})
	limits := quick
	limits.Stall, limits.StallBytes = short, 1
	// What came in the first window counts for nothing in the second.
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*short, errors.New("the stream did not end"))
	defer cancel()
	err := alone(t, s, limits).Blob(ctx, layer(), func(in io.Reader) error {
		_, err := io.Copy(io.Discard, in)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("%v, want that it was too slow", err)
	}
}

func TestStreamThatKeepsMovingMayTakeLong(t *testing.T) {
	s := hostile.New(t)
	s.On("/v2/test/app/blobs/"+layer().Digest.String(), hostile.Answer{Body: []byte(blobText), Drip: 100 * time.Millisecond})
	limits := quick
	// 16 bytes at 10 a second, where 1 a second is asked for.
	limits.Stall, limits.StallBytes = time.Second, 1
	limits.Request = time.Second // bounds headers only: the stream takes longer
	start := time.Now()
	if data, _, err := blob(t, alone(t, s, limits), layer()); err != nil || string(data) != blobText {
		t.Errorf("%q, %v", data, err)
	}
	if took := time.Since(start); took < limits.Request {
		t.Errorf("took %s: the test is about a longer stream", took)
	}
}

func TestEndOfUseEndsTheStream(t *testing.T) {
	s := hostile.New(t)
	s.On("/v2/test/app/blobs/"+layer().Digest.String(), hostile.Answer{Body: make([]byte, 1<<10), Endless: true})
	enough := errors.New("enough")
	err := alone(t, s, quick).Blob(t.Context(), layer(), func(in io.Reader) error {
		if _, err := io.CopyN(io.Discard, in, layer().Size+1); err != nil {
			return err
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Errorf("%v, want what use returned", err)
	}
	if got := len(s.Requests()); got != 1 {
		t.Errorf("%d requests, want 1: a use that fails is not repeated", got)
	}
}
