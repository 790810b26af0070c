package registry

import (
	"cmp"
	"context"
	"net/http"
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
	until map[string]time.Time             // by host: when it wants to be asked again
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

// recordWait notes how an attempt ended: a host that said when it wants to be asked again, or
// answered after all.
func recordWait(ctx context.Context, host string, resp *http.Response) {
	r, _ := ctx.Value(recorderKey{}).(*Recorder)
	if r == nil || resp == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !passing(resp.StatusCode) {
		delete(r.until, host)
		return
	}
	now := time.Now()
	if after := retryAfter(resp.Header.Get("Retry-After"), now); after > 0 {
		if r.until == nil {
			r.until = map[string]time.Time{}
		}
		r.until[host] = now.Add(min(after, maxFailedTime))
	}
}

// RetryAfter returns how long the hosts that had no answer want to be left alone, 0 where none
// said so; it is at most 10 minutes.
func (r *Recorder) RetryAfter() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var longest time.Duration
	for _, until := range r.until {
		longest = max(longest, time.Until(until))
	}
	return longest
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
