package explain

import (
	"context"

	"github.com/containerd/containerd/v2/core/streaming"
	tplugins "github.com/containerd/containerd/v2/core/transfer/plugins"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

func init() {
	tplugins.Register(&api.VerifyDestination{}, &VerifyDestination{})
}

// Verification is whether an image of the store is verified, and why. Its JSON is what
// `ctr referrers verify --format json` prints.
type Verification struct {
	Image  string        `json:"image"`
	Digest digest.Digest `json:"digest"`
	// Unselected says that no rule selects any referrers of the image: no registry is asked.
	Unselected bool `json:"unselected,omitempty"`
	*verdict.Verdict
}

// VerifyDestination is where an image of the store is transferred to have it judged, by what
// is stored and the rules and trusts of now. Nothing is changed, and no registry asked.
type VerifyDestination struct {
	answer[Verification]
	wanted
}

// NewVerify returns a destination for containerd's client. Without platforms the daemon's own
// is meant; all judges every manifest that is stored.
func NewVerify(all bool, platforms ...ocispec.Platform) *VerifyDestination {
	return &VerifyDestination{answer: newAnswer[Verification](), wanted: wanted{platforms: platforms, allPlatforms: all}}
}

// Verification returns the daemon's answer, after the transfer has succeeded.
func (d *VerifyDestination) Verification(ctx context.Context) (*Verification, error) {
	return d.receive(ctx)
}

// MarshalAny writes the message, and waits for the answer beside it.
func (d *VerifyDestination) MarshalAny(ctx context.Context, sc streaming.StreamCreator) (typeurl.Any, error) {
	id, err := d.listen(ctx, sc)
	if err != nil {
		return nil, err
	}
	return typeurl.MarshalAny(&api.VerifyDestination{Stream: id, Platforms: formatAll(d.platforms), AllPlatforms: d.allPlatforms})
}

// UnmarshalAny reads the message. The context is that of the transfer.
func (d *VerifyDestination) UnmarshalAny(ctx context.Context, sg streaming.StreamGetter, any typeurl.Any) error {
	var message api.VerifyDestination
	if err := typeurl.UnmarshalTo(any, &message); err != nil {
		return err
	}
	if err := d.read(message.Platforms, message.AllPlatforms); err != nil {
		return err
	}
	return d.connect(ctx, sg, message.Stream)
}
