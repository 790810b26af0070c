// Package explain is the destination of a transfer that stores nothing: what a
// pull would take of an image's referrers, and why.
//
// Clients make one with [New] and transfer a source to it; the daemon answers
// with an [Explanation].
package explain

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/streaming"
	tplugins "github.com/containerd/containerd/v2/core/transfer/plugins"
	tstreaming "github.com/containerd/containerd/v2/core/transfer/streaming"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
)

func init() {
	tplugins.Register(&api.ExplainDestination{}, &Destination{})
}

// Explanation is what a pull would do, and why.
type Explanation struct {
	Image  string        `json:"image"`
	Digest digest.Digest `json:"digest"`
	// Rule names the rule that governs, Selection all that it says.
	Rule      string `json:"rule"`
	Selection string `json:"selection"`
	// Refused says why the pull would fail; empty where it would succeed.
	Refused  string    `json:"refused,omitempty"`
	Subjects []Subject `json:"subjects"`
}

// Subject is a manifest or index that the pull would ask about.
type Subject struct {
	Digest   digest.Digest    `json:"digest"`
	Platform string           `json:"platform,omitempty"`
	Image    bool             `json:"image"` // part of the image, not a referrer
	Status   discovery.Status `json:"status"`
	Answers  []Answer         `json:"answers"`
	Taken    []Referrer       `json:"taken"`
	Left     []Referrer       `json:"left"`
}

// Answer is what one request to one host taught.
type Answer struct {
	Host    string           `json:"host"`
	Request string           `json:"request"`
	Code    int              `json:"code,omitempty"`
	Status  discovery.Status `json:"status,omitempty"`
	Detail  string           `json:"detail,omitempty"`
}

// Referrer is one that would be taken, or would be left; a request that failed has
// no digest.
type Referrer struct {
	Digest       digest.Digest `json:"digest,omitempty"`
	ArtifactType string        `json:"artifactType,omitempty"`
	Reason       string        `json:"reason"`
}

// Destination is where a source is transferred to have it explained.
type Destination struct {
	platforms []ocispec.Platform
	stream    streaming.Stream // set in the daemon

	received chan received // set at the client
}

type received struct {
	explanation *Explanation
	err         error
}

// New returns a destination for containerd's client. Without platforms the
// daemon's own is meant.
func New(wanted ...ocispec.Platform) *Destination {
	return &Destination{platforms: wanted, received: make(chan received, 1)}
}

// Platforms returns the platforms that the pull would be for.
func (d *Destination) Platforms() []ocispec.Platform { return d.platforms }

// receiveTimeout is how long the answer may take to arrive once the transfer has
// ended: it was sent before.
const receiveTimeout = 10 * time.Second

// Explanation returns the daemon's answer, after the transfer has succeeded.
func (d *Destination) Explanation(ctx context.Context) (*Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	select {
	case r := <-d.received:
		return r.explanation, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the daemon sent no explanation: %w", ctx.Err())
	}
}

// Send answers the client. The daemon calls it once.
func (d *Destination) Send(e *Explanation) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	message, err := typeurl.MarshalAny(&api.Explanation{Json: data})
	if err != nil {
		return err
	}
	return d.stream.Send(message)
}

// MarshalAny writes the message, and waits for the answer beside it.
func (d *Destination) MarshalAny(ctx context.Context, sc streaming.StreamCreator) (typeurl.Any, error) {
	id := tstreaming.GenerateID("explain")
	stream, err := sc.Create(ctx, id)
	if err != nil {
		return nil, err
	}
	go func() {
		defer stream.Close()
		e, err := receive(stream)
		d.received <- received{e, err}
	}()
	message := &api.ExplainDestination{Stream: id}
	for _, p := range d.platforms {
		message.Platforms = append(message.Platforms, platforms.FormatAll(p))
	}
	return typeurl.MarshalAny(message)
}

func receive(stream streaming.Stream) (*Explanation, error) {
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var message api.Explanation
	if err := typeurl.UnmarshalTo(answer, &message); err != nil {
		return nil, err
	}
	e := &Explanation{}
	return e, json.Unmarshal(message.Json, e)
}

// UnmarshalAny reads the message. The context is that of the transfer.
func (d *Destination) UnmarshalAny(ctx context.Context, sg streaming.StreamGetter, any typeurl.Any) error {
	var message api.ExplainDestination
	if err := typeurl.UnmarshalTo(any, &message); err != nil {
		return err
	}
	var err error
	if d.platforms, err = platforms.ParseAll(message.Platforms); err != nil {
		return err
	}
	if d.stream, err = sg.Get(ctx, message.Stream); err != nil {
		return fmt.Errorf("explain stream: %w", err)
	}
	return nil
}
