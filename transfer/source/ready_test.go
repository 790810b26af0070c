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
func TestOpenRegistries(t *testing.T) {
	for i := range maxOpen + 10 {
		rememberOpen(fmt.Sprintf("%d.example.com", i), true)
	}
	if n := len(openRegistries.since); n != maxOpen {
		t.Errorf("%d registries are remembered, want %d", n, maxOpen)
	}
	rememberOpen("a.example.com", true)
	if !isOpen("a.example.com") {
		t.Error("a registry is not remembered")
	}
	rememberOpen("a.example.com", false)
	if isOpen("a.example.com") {
		t.Error("a registry that asked for authorization is remembered")
	}
	openRegistries.since["b.example.com"] = time.Now().Add(-openTime)
	if isOpen("b.example.com") {
		t.Error("a registry is remembered for too long")
	}
}
