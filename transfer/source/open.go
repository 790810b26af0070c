package source

import (
	"context"
	"fmt"
	"io"
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
func Open(ctx context.Context, m Marshaler) (*Source, error) {
	streams := &memoryStreams{ends: map[string]streaming.Stream{}}
	message, err := m.MarshalAny(ctx, streams)
	if err != nil {
		return nil, err
	}
	s := &Source{}
	return s, s.UnmarshalAny(ctx, streams, message)
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
	m.ends[id] = &memoryStream{ctx, cancel, there, here}
	return &memoryStream{ctx, cancel, here, there}, nil
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
type memoryStream struct {
	ctx    context.Context
	cancel context.CancelFunc
	in     <-chan typeurl.Any
	out    chan<- typeurl.Any
}

func (s *memoryStream) Send(a typeurl.Any) error {
	select {
	case s.out <- a:
		return nil
	case <-s.ctx.Done():
		return io.EOF
	}
}

func (s *memoryStream) Recv() (typeurl.Any, error) {
	select {
	case a := <-s.in:
		return a, nil
	case <-s.ctx.Done():
		return nil, io.EOF
	}
}

func (s *memoryStream) Close() error {
	s.cancel()
	return nil
}
