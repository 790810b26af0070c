package push

import (
	"context"
	"testing"
)

// One push at a time writes to an address, and none is remembered.
func TestLocks(t *testing.T) {
	l := &Locks{}
	unlock, err := l.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.lock(ctx, "a"); err == nil {
		t.Error("two hold the lock")
	}
	unlock()
	if len(l.held) != 0 {
		t.Errorf("%d locks are remembered", len(l.held))
	}
}
