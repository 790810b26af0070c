package source

import (
	"fmt"
	"testing"
	"time"
)

func opened(g *gate) bool {
	select {
	case <-g.wait():
		return true
	default:
		return false
	}
}

func TestGate(t *testing.T) {
	var g gate
	if opened(&g) {
		t.Error("a gate is open from the start")
	}
	g.open(false)
	g.open(true)
	if !opened(&g) || !g.challenged {
		t.Errorf("open %v, challenged %v; want both", opened(&g), g.challenged)
	}
}

// What is remembered of registries is bounded, ends, and is forgotten once untrue.
func TestMemoryOfAnonymousRegistries(t *testing.T) {
	m := &Memory{}
	for i := range maxAnonymous + 10 {
		m.setAnonymous(fmt.Sprintf("%d.example.com", i), true)
	}
	if n := len(m.anonymous); n != maxAnonymous {
		t.Errorf("%d registries are remembered, want %d", n, maxAnonymous)
	}
	m.setAnonymous("a.example.com", true)
	if !m.isAnonymous("a.example.com") {
		t.Error("a registry is not remembered")
	}
	m.setAnonymous("a.example.com", false)
	if m.isAnonymous("a.example.com") {
		t.Error("a registry that asked for authorization is remembered")
	}
	m.anonymous["b.example.com"] = time.Now().Add(-anonymousTime)
	if m.isAnonymous("b.example.com") {
		t.Error("a registry is remembered for too long")
	}
}
