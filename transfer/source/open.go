package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/streaming"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
)

// Marshaler is a source that can write its message: containerd's OCIRegistry,
// or a Source of New.
type Marshaler interface {
	MarshalAny(context.Context, streaming.StreamCreator) (typeurl.Any, error)
}

// Open turns a source that was handed over in-process, complete, into one of the
// daemon's: it writes its message and reads it back, with streams in memory in
// place of a client's. The context is that of the transfer and ends the streams.
//
// The error is errdefs.ErrFailedPrecondition where the message has lost the value of a
// registry header: containerd's OCIRegistry writes it only for a name in canonical form.
func Open(ctx context.Context, m Marshaler) (*Source, error) {
	streams := &memoryStreams{ends: map[string]streaming.Stream{}}
	message, err := m.MarshalAny(ctx, streams)
	if err != nil {
		return nil, err
	}
	s := &Source{}
	if err := s.UnmarshalAny(ctx, streams, message); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.message.GetResolver().GetHeaders())) {
		if canonical := http.CanonicalHeaderKey(name); name != canonical {
			return nil, fmt.Errorf("containerd's message of a source loses the registry header %s, whose name is not in canonical form: write %s in containerd's config.toml: %w", name, canonical, errdefs.ErrFailedPrecondition)
		}
	}
	return s, nil
}

// memoryStreams joins what one side creates with what the other gets.
type memoryStreams struct {
	mu   sync.Mutex
	ends map[string]streaming.Stream
}

func (m *memoryStreams) Create(ctx context.Context, id string) (streaming.Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	there, here := make(chan typeurl.Any), make(chan typeurl.Any)
	ctx, cancel := context.WithCancel(ctx)
	server := &memoryStream{ctx: ctx, cancel: cancel, in: there, out: here}
	client := &memoryStream{ctx: ctx, cancel: cancel, in: here, out: there}
	if strings.HasPrefix(id, "creds") {
		failed := make(chan struct{}, 1)
		server.failed, client.fail = failed, failed
	}
	m.ends[id] = server
	return client, nil
}

func (m *memoryStreams) Get(_ context.Context, id string) (streaming.Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.ends[id]; ok {
		delete(m.ends, id)
		return s, nil
	}
	return nil, fmt.Errorf("stream %q: %w", id, errdefs.ErrNotFound)
}

// memoryStream is one end of a stream; closing either ends both.
//
// On a stream for credentials every question has one answer. containerd's source
// asks for the next question where its helper failed, and answers nothing: that
// is told to the other end, which would wait for ever.
type memoryStream struct {
	ctx    context.Context
	cancel context.CancelFunc
	in     <-chan typeurl.Any
	out    chan<- typeurl.Any

	failed <-chan struct{} // at the daemon's end
	fail   chan<- struct{} // at the source's
	owed   bool            // the source has a question to answer
}

var errNoCredentials = errors.New("the client could not give credentials; its own error is in the log")

func (s *memoryStream) Send(a typeurl.Any) error {
	s.owed = false
	select {
	case s.out <- a:
		return nil
	case <-s.ctx.Done():
		return io.EOF
	}
}

func (s *memoryStream) Recv() (typeurl.Any, error) {
	if s.fail != nil && s.owed {
		s.owed = false
		select {
		case s.fail <- struct{}{}:
		default:
		}
	}
	select {
	case a := <-s.in:
		s.owed = true
		return a, nil
	case <-s.failed:
		return nil, errNoCredentials
	case <-s.ctx.Done():
		return nil, io.EOF
	}
}

func (s *memoryStream) Close() error {
	s.cancel()
	return nil
}
