package explain

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/streaming"
	tstreaming "github.com/containerd/containerd/v2/core/transfer/streaming"
	"github.com/containerd/typeurl/v2"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
)

// answer is the way of a value, as JSON, from the daemon to the client.
type answer[T any] struct {
	stream   streaming.Stream // set in the daemon
	received chan received[T] // set at the client
}

type received[T any] struct {
	value *T
	err   error
}

func newAnswer[T any]() answer[T] { return answer[T]{received: make(chan received[T], 1)} }

// receiveTimeout is how long the answer may take to arrive once the transfer has
// ended: it was sent before.
const receiveTimeout = 10 * time.Second

// receive returns the daemon's answer, after the transfer has succeeded.
func (a *answer[T]) receive(ctx context.Context) (*T, error) {
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	select {
	case r := <-a.received:
		return r.value, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the daemon sent no answer: %w", ctx.Err())
	}
}

// Send answers the client. The daemon calls it once. An answer that is too large for one
// message is an errdefs.ErrResourceExhausted.
func (a *answer[T]) Send(value *T) error {
	data, err := bounded(value, maxAnswer)
	if err != nil {
		return err
	}
	var message typeurl.Any
	switch any(value).(type) {
	case *Verification:
		message, err = typeurl.MarshalAny(&api.Verification{Json: data})
	default:
		message, err = typeurl.MarshalAny(&api.Explanation{Json: data})
	}
	if err != nil {
		return err
	}
	return a.stream.Send(message)
}

// listen makes the stream, waits for the answer beside it and returns the stream's
// name.
func (a *answer[T]) listen(ctx context.Context, sc streaming.StreamCreator) (string, error) {
	id := tstreaming.GenerateID("explain")
	stream, err := sc.Create(ctx, id)
	if err != nil {
		return "", err
	}
	go func() {
		defer stream.Close()
		value, err := receive[T](stream)
		a.received <- received[T]{value, err}
	}()
	return id, nil
}

func receive[T any](stream streaming.Stream) (*T, error) {
	message, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var data []byte
	value := new(T)
	switch any(value).(type) {
	case *Verification:
		var m api.Verification
		err = typeurl.UnmarshalTo(message, &m)
		data = m.Json
	default:
		var m api.Explanation
		err = typeurl.UnmarshalTo(message, &m)
		data = m.Json
	}
	if err != nil {
		return nil, err
	}
	return value, json.Unmarshal(data, value)
}

// connect finds the client's stream, in the daemon.
func (a *answer[T]) connect(ctx context.Context, sg streaming.StreamGetter, id string) error {
	var err error
	if a.stream, err = sg.Get(ctx, id); err != nil {
		return fmt.Errorf("explain stream: %w", err)
	}
	return nil
}
