package gate

import (
	"fmt"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Evidence is examined once for as long as nothing changes; each change has it examined again
// by the next container.
func TestVerdictsAreRememberedUntilSomethingChanges(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
	m := n.manifest("app", "a")
	index := n.index(m)
	ours := n.sign("ours", index)
	n.tag(index, ruledName)
	image := Image{ruledName, index.Digest, config("app")}
	last := 0
	// again judges, and says whether evidence was examined.
	again := func(what string, examined bool, says ...string) {
		t.Helper()
		n.want(image, says...)
		if now := n.looked(); (now > last) != examined {
			t.Errorf("%s: %d pieces were examined", what, now-last)
		}
		last = n.looked()
	}
	again("the first", true)
	again("the second", false)
	n.trusts("theirs")
	again("the key was replaced", true, "it is by another")
	again("refused again", false, "it is by another")
	n.trusts("ours")
	again("the key is back", true)
	n.withdraw(index, ours)
	again("the signature was withdrawn", false, "it was withdrawn")
	n.sign("ours", m)
	again("the manifest was signed", true)
	n.tag(index, "registry.example.com/prod/app:v2")
	again("it has another name", true)
	again("the same", false)
	for k, r := range n.gate.memory.known {
		r.at = r.at.Add(-maxAge)
		n.gate.memory.known[k] = r
	}
	again("it is old", true)
}

// Memory is bounded, by number and by what one verdict was made of.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
	var m memory
	question := func(i int) question { return question{image: Image{Digest: digest.FromString(fmt.Sprint(i))}} }
	for i := range maxRemembered + 100 {
		m.keep(n.ctx, question(i), nil, nil)
	}
	if len(m.known) != maxRemembered {
		t.Errorf("%d verdicts are remembered, want %d", len(m.known), maxRemembered)
	}
	if _, ok := m.recall(n.ctx, n.store, question(maxRemembered+99)); !ok {
		t.Error("the newest is forgotten")
	}
	if _, ok := m.recall(n.ctx, n.store, question(0)); ok {
		t.Error("the oldest is remembered")
	}
	m.keep(n.ctx, question(-1), nil, make([]judge.Subject, maxSubjects+1))
	if _, ok := m.recall(n.ctx, n.store, question(-1)); ok {
		t.Error("a verdict of too many subjects is remembered")
	}
}

// What an image holds is read once, and again when its record is written: another platform may
// have been pulled.
func TestContentsAreReadAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
	one := n.manifest("one", "one")
	two := one
	two.Digest = digest.FromString("not stored yet")
	index := n.index(one, two)
	at := time.Unix(1, 0)
	var c contents
	if got := c.of(n.ctx, n.store, index, at); len(got) != 3 {
		t.Errorf("it holds %v", got)
	}
	if err := n.store.Delete(n.ctx, one.Digest); err != nil {
		t.Fatal(err)
	}
	if got := c.of(n.ctx, n.store, index, at); len(got) != 3 {
		t.Errorf("it was read again: %v", got)
	}
	if got := c.of(n.ctx, n.store, index, at.Add(1)); len(got) != 0 {
		t.Errorf("it was not read again: %v", got)
	}
}

// Records are read again when an event tells of a change, and when there are no events.
func TestRecordsAreReadAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
	m := n.manifest("app", "a")
	n.tag(m, unruledName)
	image := Image{unruledName, m.Digest, config("app")}
	n.want(image)
	changed, ended := make(chan *events.Envelope), make(chan error)
	n.gate.Watch(changed, ended)
	n.want(image)
	n.tag(m, ruledName)
	n.want(image) // there was no event
	changed <- nil
	changed <- nil // the first has been counted
	n.want(image, "image "+ruledName+" is refused")
	if err := n.image.Delete(n.ctx, ruledName); err != nil {
		t.Fatal(err)
	}
	n.want(image, "image "+ruledName+" is refused")
	close(ended)
	for n.gate.watched.Load() {
		time.Sleep(time.Millisecond)
	}
	n.want(image)
}

// A record of another namespace is another's.
func TestNamespacesAreApart(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
	m := n.manifest("app", "a")
	n.tag(m, unruledName)
	image := Image{unruledName, m.Digest, config("app")}
	n.gate.Watch(make(chan *events.Envelope), make(chan error))
	n.want(image)
	n.ctx = namespaces.WithNamespace(t.Context(), "other")
	m = n.manifest("app", "a")
	n.tag(m, ruledName, unruledName)
	n.want(image, "image "+ruledName+" is refused")
	n.ctx = namespaces.WithNamespace(t.Context(), "k8s.io")
	n.want(image)
}
