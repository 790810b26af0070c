package push

import (
	"context"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// progressInterval is how often an upload reports at most.
const progressInterval = 100 * time.Millisecond

// report tells the client of content, beneath its parent: a referrer beneath its
// subject, a blob beneath its referrer. Names are those of the image's own push.
// Clients draw a tree of them; it has no circle, since a referrer is shown only
// where its manifest names its subject by digest, or lies under one of cosign's tags.
func (p *pusher) report(what string, desc, parent ocispec.Descriptor, bytes int64) {
	if p.config.Progress == nil {
		return
	}
	desc = artifact.Plain(desc)
	// Names depend on no context here; this one spares their debug lines.
	p.config.Progress(transfer.Progress{
		Event:    what,
		Name:     remotes.MakeRefKey(context.Background(), desc),
		Parents:  []string{remotes.MakeRefKey(context.Background(), artifact.Plain(parent))},
		Progress: bytes,
		Total:    desc.Size,
		Desc:     &desc,
	})
}
