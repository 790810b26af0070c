package push

import (
	"context"
	"sync"
)

// Locks has the pushes of one daemon write in turn to what has many writers, by its
// address: tags, and the referrers of a subject. Its zero value is ready.
type Locks struct {
	mu   sync.Mutex
	held map[string]*addressLock
}

type addressLock struct {
	slot  chan struct{}
	users int // waiting or holding
}

// lock waits for the address, as long as the context lives.
func (l *Locks) lock(ctx context.Context, address string) (unlock func(), err error) {
	l.mu.Lock()
	a := l.held[address]
	if a == nil {
		a = &addressLock{slot: make(chan struct{}, 1)}
		if l.held == nil {
			l.held = map[string]*addressLock{}
		}
		l.held[address] = a
	}
	a.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if a.users--; a.users == 0 {
			delete(l.held, address)
		}
	}
	select {
	case a.slot <- struct{}{}:
		return func() { <-a.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
