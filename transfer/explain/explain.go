// Package explain is the destinations of transfers that take no image.
//
// To [Destination] nothing is stored: the daemon says what a pull would take of an
// image's referrers, and why. To [FetchDestination] the referrers of an image are
// transferred that is stored already. Clients transfer a source to either, and the
// daemon answers with an [Explanation].
package explain

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/streaming"
	tplugins "github.com/containerd/containerd/v2/core/transfer/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
)

func init() {
	tplugins.Register(&api.ExplainDestination{}, &Destination{})
}

// Destination is where a source is transferred to have it explained.
type Destination struct {
	answer[Explanation]
	platforms []ocispec.Platform
}

// New returns a destination for containerd's client. Without platforms the
// daemon's own is meant.
func New(wanted ...ocispec.Platform) *Destination {
	return &Destination{answer: newAnswer[Explanation](), platforms: wanted}
}

// Explanation returns the daemon's answer, after the transfer has succeeded.
func (d *Destination) Explanation(ctx context.Context) (*Explanation, error) { return d.receive(ctx) }

// Platforms returns the platforms that the pull would be for.
func (d *Destination) Platforms() []ocispec.Platform { return d.platforms }

// MarshalAny writes the message, and waits for the answer beside it.
func (d *Destination) MarshalAny(ctx context.Context, sc streaming.StreamCreator) (typeurl.Any, error) {
	id, err := d.listen(ctx, sc)
	if err != nil {
		return nil, err
	}
	return typeurl.MarshalAny(&api.ExplainDestination{Stream: id, Platforms: formatAll(d.platforms)})
}

// UnmarshalAny reads the message. The context is that of the transfer.
func (d *Destination) UnmarshalAny(ctx context.Context, sg streaming.StreamGetter, any typeurl.Any) error {
	var message api.ExplainDestination
	if err := typeurl.UnmarshalTo(any, &message); err != nil {
		return err
	}
	var err error
	if d.platforms, err = parseAll(message.Platforms); err != nil {
		return err
	}
	return d.connect(ctx, sg, message.Stream)
}

func formatAll(list []ocispec.Platform) []string {
	var out []string
	for _, p := range list {
		out = append(out, platforms.FormatAll(p))
	}
	return out
}

func parseAll(names []string) ([]ocispec.Platform, error) {
	list, err := platforms.ParseAll(names)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return list, nil
}
