package explain

import (
	"context"

	"github.com/containerd/containerd/v2/core/streaming"
	tplugins "github.com/containerd/containerd/v2/core/transfer/plugins"
	"github.com/containerd/typeurl/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
)

func init() {
	tplugins.Register(&api.FetchDestination{}, &FetchDestination{})
}

// FetchDestination is where a source is transferred to have the referrers of an image
// stored that is there already. The source names the image with the digest that is
// stored, "registry.example.com/app:v1@sha256:...". The Explanation says what was
// taken; where Refused is set the rule is not satisfied, and what came is kept all
// the same.
type FetchDestination struct {
	answer[Explanation]
	wanted
}

// FetchOpt configures a FetchDestination.
type FetchOpt func(*FetchDestination)

// WithPlatforms asks about the manifests for those platforms in place of the
// daemon's own.
func WithPlatforms(wanted ...ocispec.Platform) FetchOpt {
	return func(d *FetchDestination) { d.platforms = append(d.platforms, wanted...) }
}

// WithAllPlatforms asks about every manifest of the image that is stored.
func WithAllPlatforms() FetchOpt {
	return func(d *FetchDestination) { d.allPlatforms = true }
}

// NewFetch returns a destination for containerd's client. The image's root is asked
// about in any case, and unless an option says otherwise the manifest for the
// daemon's own platform.
func NewFetch(opts ...FetchOpt) *FetchDestination {
	d := &FetchDestination{answer: newAnswer[Explanation]()}
	for _, opt := range opts {
		opt(d)
	}
	return d
}

// Explanation returns the daemon's answer, after the transfer has succeeded.
func (d *FetchDestination) Explanation(ctx context.Context) (*Explanation, error) {
	return d.receive(ctx)
}

// MarshalAny writes the message, and waits for the answer beside it.
func (d *FetchDestination) MarshalAny(ctx context.Context, sc streaming.StreamCreator) (typeurl.Any, error) {
	id, err := d.listen(ctx, sc)
	if err != nil {
		return nil, err
	}
	return typeurl.MarshalAny(&api.FetchDestination{Stream: id, Platforms: formatAll(d.platforms), AllPlatforms: d.allPlatforms})
}

// UnmarshalAny reads the message. The context is that of the transfer.
func (d *FetchDestination) UnmarshalAny(ctx context.Context, sg streaming.StreamGetter, any typeurl.Any) error {
	var message api.FetchDestination
	if err := typeurl.UnmarshalTo(any, &message); err != nil {
		return err
	}
	if err := d.read(message.Platforms, message.AllPlatforms); err != nil {
		return err
	}
	return d.connect(ctx, sg, message.Stream)
}
