package push

import (
	"context"
	"sync"
)

// turns are those of this daemon's pushes at what has many writers, by its address:
// tags, and the referrers of a subject.
var turns = &locks{held: map[string]*turn{}}

type locks struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	slot    chan struct{}
	waiting int // and holding
}

// lock waits for the turn at the key, as long as the context lives.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	t := l.held[key]
	if t == nil {
		t = &turn{slot: make(chan struct{}, 1)}
		l.held[key] = t
	}
	t.waiting++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(l.held, key)
		}
	}
	select {
	case t.slot <- struct{}{}:
		return func() { <-t.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
