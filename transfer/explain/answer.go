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

// answer is the way of an Explanation from the daemon to the client.
type answer struct {
	stream   streaming.Stream // set in the daemon
	received chan received    // set at the client
}

type received struct {
	explanation *Explanation
	err         error
}

func newAnswer() answer { return answer{received: make(chan received, 1)} }

// receiveTimeout is how long the answer may take to arrive once the transfer has
// ended: it was sent before.
const receiveTimeout = 10 * time.Second

// Explanation returns the daemon's answer, after the transfer has succeeded.
func (a *answer) Explanation(ctx context.Context) (*Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	select {
	case r := <-a.received:
		return r.explanation, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the daemon sent no explanation: %w", ctx.Err())
	}
}

// Send answers the client. The daemon calls it once. An explanation that is too large for
// one message is an errdefs.ErrResourceExhausted.
func (a *answer) Send(e *Explanation) error {
	data, err := bounded(e, maxAnswer)
	if err != nil {
		return err
	}
	message, err := typeurl.MarshalAny(&api.Explanation{Json: data})
	if err != nil {
		return err
	}
	return a.stream.Send(message)
}

// listen makes the stream, waits for the answer beside it and returns the stream's
// name.
func (a *answer) listen(ctx context.Context, sc streaming.StreamCreator) (string, error) {
	id := tstreaming.GenerateID("explain")
	stream, err := sc.Create(ctx, id)
	if err != nil {
		return "", err
	}
	go func() {
		defer stream.Close()
		e, err := receive(stream)
		a.received <- received{e, err}
	}()
	return id, nil
}

func receive(stream streaming.Stream) (*Explanation, error) {
	message, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var explanation api.Explanation
	if err := typeurl.UnmarshalTo(message, &explanation); err != nil {
		return nil, err
	}
	e := &Explanation{}
	return e, json.Unmarshal(explanation.Json, e)
}

// connect finds the client's stream, in the daemon.
func (a *answer) connect(ctx context.Context, sg streaming.StreamGetter, id string) error {
	var err error
	if a.stream, err = sg.Get(ctx, id); err != nil {
		return fmt.Errorf("explain stream: %w", err)
	}
	return nil
}
