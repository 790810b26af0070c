// Package transfer wraps containerd's local transfer service and makes its pulls
// and pushes referrers-aware. Each operation has a file of its name (pull, push, import,
// export, explain, fetch), and the others hold what several share. What it does not change
// goes to the wrapped service as it came.
//
// A pull meets the packages below in this order: source (the image in its
// registry), policy (what to take), gather (the work beside the image), which
// asks registry what there is and reads through it.
package transfer

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/ahead"
	"github.com/transfer-referrers/transfer-referrers/transfer/archive"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/metrics"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/push"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// Config is what a Transferrer works with.
type Config struct {
	// Local is containerd's local transfer service.
	Local transfer.Transferrer
	// Store is the content store that Local writes to.
	Store content.Store
	// Transaction writes to Store in one transaction; nil where it has none.
	Transaction stored.Transaction
	// Images says which images are there; nil means that it is not known.
	Images images.Store
	// Snapshotters are those that need the content of every layer, as remote ones do not; "" among
	// them stands for what containerd takes where a client names none. A pull that unpacks
	// with no others opens layers before it knows the config.
	Snapshotters []string
	// Leases keeps what a pull brings in until it is tied to the image.
	Leases leases.Manager
	Policy *policy.Policy
	// Judge judges the images that a rule verifies; nil only where none does.
	Judge  *judge.Judge
	Limits gather.Limits
	Cosign gather.CosignTags
	// Export carries referrers in archives.
	Export bool
	// Metrics counts what pulls do; nil counts nothing.
	Metrics *metrics.Metrics
	// Events is told what came, what was withdrawn, and of new verdicts; nil tells nobody.
	Events events.Publisher
	// Push carries referrers on every push; without it, on those whose client
	// selects them.
	Push bool
}

// Transferrer is a transfer.Transferrer whose pulls bring the image's referrers and
// whose pushes carry them.
type Transferrer struct {
	config       Config
	labeler      *stored.Labeler
	pushLocks    push.Locks
	sessions     registry.Sessions
	notices      registry.Notices
	capabilities registry.Capabilities
	layers       ahead.Layers
	answers      registry.AnswerCache
	lastVerdicts lastVerdicts
}

var _ transfer.Transferrer = (*Transferrer)(nil)

// New returns a Transferrer.
func New(config Config) *Transferrer {
	labeler := stored.NewLabeler(config.Store)
	if config.Transaction != nil {
		labeler.SetTransaction(config.Transaction)
	}
	t := &Transferrer{config: config, labeler: labeler}
	t.sessions.Observer = config.Metrics
	return t
}

// Transfer implements transfer.Transferrer. The combinations of source and
// destination are those of the wrapped service.
func (t *Transferrer) Transfer(ctx context.Context, src, dst any, opts ...transfer.Opt) error {
	switch s := src.(type) {
	case transfer.ImageFetcher:
		switch d := dst.(type) {
		case transfer.ImageStorer:
			return t.pull(ctx, s, d, opts...)
		case *explain.Destination:
			return t.explain(ctx, s, d)
		case *explain.FetchDestination:
			return t.fetch(ctx, s, d, opts...)
		}
	case transfer.ImageGetter:
		switch d := dst.(type) {
		case *archive.Stream:
			return t.export(ctx, s, d, opts...)
		case *explain.VerifyDestination:
			return t.verify(ctx, s, d)
		case transfer.ImagePusher:
			return t.push(ctx, s, d, opts...)
		}
	case transfer.ImageImporter:
		if d, ok := dst.(transfer.ImageStorer); ok {
			return t.importArchive(ctx, s, d, opts...)
		}
	}
	return t.config.Local.Transfer(ctx, src, dst, opts...)
}

// leaseTime is how long a lease outlives a daemon that was killed in a pull; it
// is containerd's own.
const leaseTime = 24 * time.Hour

// withLease puts a lease around a whole operation, so that it ends after the last
// referrer is tied or given up. The wrapped service uses the one it finds.
func (t *Transferrer) withLease(ctx context.Context) (context.Context, func(), error) {
	if _, ok := leases.FromContext(ctx); ok || t.config.Leases == nil {
		return ctx, func() {}, nil
	}
	l, err := t.config.Leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return nil, nil, err
	}
	return leases.WithLease(ctx, l.ID), func() {
		// A pull that was cancelled must not keep its lease for a day.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = t.config.Leases.Delete(ctx, l) // it expires in any case
	}, nil
}

// protector returns what puts content under the context's lease; nil where there is none,
// or where the collector does not follow labels from it: a client may bring its own.
func (t *Transferrer) protector(ctx context.Context) func(context.Context, digest.Digest) error {
	id, ok := leases.FromContext(ctx)
	if !ok || t.config.Leases == nil {
		return nil
	}
	all, err := t.config.Leases.List(ctx, "id=="+strconv.Quote(id))
	if err != nil || len(all) != 1 {
		return nil
	}
	if _, flat := all[0].Labels[labelFlat]; flat {
		return nil
	}
	return func(ctx context.Context, dgst digest.Digest) error {
		return t.config.Leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: dgst.String(), Type: "content"})
	}
}

// labelFlat is on leases that hold what they name and nothing beneath it (containerd's
// metadata package, which keeps the name to itself).
const labelFlat = "containerd.io/gc.flat"

// locked returns a progress function that may be called from several goroutines:
// a client's is a gRPC stream, or feeds an unguarded map.
func locked(progress transfer.ProgressFunc) transfer.ProgressFunc {
	if progress == nil {
		return nil
	}
	var mu sync.Mutex
	return func(p transfer.Progress) {
		mu.Lock()
		defer mu.Unlock()
		progress(p)
	}
}
