package transfer

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// The topics of the events that pulls and fetches publish on containerd's event bus.
const (
	TopicAdded     = "/referrers/added"
	TopicWithdrawn = "/referrers/withdrawn"
	TopicVerdict   = "/referrers/verdict"
)

// publish puts an event on the bus, in the namespace of the context. That nobody hears of it is
// no reason to fail a pull.
func (t *Transferrer) publish(ctx context.Context, topic string, event any) {
	if t.config.Events == nil {
		return
	}
	if err := t.config.Events.Publish(ctx, topic, event); err != nil {
		log.G(ctx).WithError(err).WithField("topic", topic).Warn("referrers: an event could not be published")
	}
}

// publishChanges tells what came and what was withdrawn, now that the store says so.
func (q *query) publishChanges(ctx context.Context) {
	for _, c := range q.gather.Changes() {
		image, subject, referrer := q.name, c.Subject.String(), c.Referrer.String()
		if c.Withdrawn {
			q.t.publish(ctx, TopicWithdrawn, &api.ReferrerWithdrawn{Image: image, Subject: subject, Referrer: referrer})
		} else {
			q.t.publish(ctx, TopicAdded, &api.ReferrerAdded{Image: image, Subject: subject, Referrer: referrer})
		}
	}
}

// noteVerdict counts a verdict, and tells of one that is another than the last on the same image;
// nil is of a rule that verifies nothing.
func (q *query) noteVerdict(ctx context.Context, v *verdict.Verdict) {
	if v == nil {
		return
	}
	q.t.config.Metrics.Verdict(v.Result, v.Mode)
	namespace, _ := namespaces.Namespace(ctx)
	previous := q.t.lastVerdicts.replace(verdictKey{namespace, q.name, q.root}, v.Result)
	if previous == v.Result {
		return
	}
	q.t.publish(ctx, TopicVerdict, &api.VerdictChanged{
		Image: q.name, Digest: q.root.String(), Result: string(v.Result), Previous: string(previous),
		Mode: string(v.Mode), Rule: v.Rule, Reason: v.Reason,
	})
}

// maxLastVerdicts is how many verdicts are remembered, to tell a new one from the same again.
const maxLastVerdicts = 4096

type verdictKey struct {
	namespace, image string
	digest           digest.Digest
}

// lastVerdicts are the last verdicts of the daemon's life. They decide on events alone: nothing
// is verified because it was. The zero value is ready to use.
type lastVerdicts struct {
	mu      sync.Mutex
	results map[verdictKey]verdict.Result
}

// replace remembers a verdict, and returns the one before it, "" where none is known. Where there
// is no room any other is forgotten.
func (l *lastVerdicts) replace(key verdictKey, result verdict.Result) verdict.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	previous, known := l.results[key]
	if l.results == nil {
		l.results = map[verdictKey]verdict.Result{}
	}
	if !known && len(l.results) >= maxLastVerdicts {
		for other := range l.results {
			delete(l.results, other)
			break
		}
	}
	l.results[key] = result
	return previous
}
