package registry

import (
	"cmp"
	"context"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"

	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// Recorder records what requests used of what the daemon remembers. It is safe for
// concurrent use.
type Recorder struct {
	mu    sync.Mutex
	known map[outcome.Memory]time.Duration // without its age
}

type recorderKey struct{}

// WithRecorder has the requests of the context recorded.
func WithRecorder(ctx context.Context, r *Recorder) context.Context {
	return context.WithValue(ctx, recorderKey{}, r)
}

// record notes that the context's request used what is that old: the first use counts.
func record(ctx context.Context, kind outcome.MemoryKind, host string, age time.Duration) {
	r, _ := ctx.Value(recorderKey{}).(*Recorder)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := outcome.Memory{Host: host, Kind: kind}
	if _, ok := r.known[key]; ok {
		return
	}
	if r.known == nil {
		r.known = map[outcome.Memory]time.Duration{}
	}
	r.known[key] = age
}

// Used returns what was used, by host and kind.
func (r *Recorder) Used() []outcome.Memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := []outcome.Memory{}
	for m, age := range r.known {
		m.Age = age.Round(time.Second).String()
		used = append(used, m)
	}
	slices.SortFunc(used, func(a, b outcome.Memory) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Kind, b.Kind))
	})
	return used
}

// recordConnections has the context's requests tell of connections that were there and idle.
func recordConnections(ctx context.Context, host string) context.Context {
	if r, _ := ctx.Value(recorderKey{}).(*Recorder); r == nil {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if info.Reused && info.WasIdle {
			record(ctx, outcome.MemoryConnection, host, info.IdleTime)
		}
	}})
}
