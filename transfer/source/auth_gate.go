package source

import (
	"sync"
	"time"

	"github.com/containerd/containerd/v2/pkg/reference"
)

// gate opens when requests beside the resolver's own would no longer be refused for
// want of a token: each of them would cost a round trip and a 401 more.
type gate struct {
	mu         sync.Mutex
	opened     chan struct{} // made by whoever comes first
	isOpen     bool
	challenged bool // the registry asked for authorization in this pull
}

func (g *gate) open(challenged bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.challenged = g.challenged || challenged
	if !g.isOpen {
		g.isOpen = true
		close(g.channel())
	}
}

func (g *gate) channel() chan struct{} {
	if g.opened == nil {
		g.opened = make(chan struct{})
	}
	return g.opened
}

// wait returns a channel that is closed once the gate is open.
func (g *gate) wait() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.channel()
}

const (
	// maxAnonymous is how many registries are remembered to ask for no authorization.
	maxAnonymous = 256
	// anonymousTime is how long they are.
	anonymousTime = 10 * time.Minute
)

// Memory is what the daemon remembers of registries between pulls: those whose last pull
// was not asked to authorize, with the time. One that has changed its mind costs a 401
// for each request that did not wait. Its zero value is ready; nil remembers nothing.
type Memory struct {
	mu        sync.Mutex
	anonymous map[string]time.Time
}

func (m *Memory) setAnonymous(registry string, anonymous bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.anonymous, registry)
	if !anonymous {
		return
	}
	if m.anonymous == nil {
		m.anonymous = map[string]time.Time{}
	}
	for other := range m.anonymous { // any: a pull of it costs a round trip more
		if len(m.anonymous) < maxAnonymous {
			break
		}
		delete(m.anonymous, other)
	}
	m.anonymous[registry] = time.Now()
}

func (m *Memory) isAnonymous(registry string) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	since, ok := m.anonymous[registry]
	return ok && time.Since(since) < anonymousTime
}

// Remember has the source use and add to what is remembered of its registry. It must
// come before Resolve.
func (s *Source) Remember(m *Memory) { s.memory = m }

// Ready returns a channel that is closed when requests to the registry may be made
// beside the one that resolves the image: that one is authorized and on its way,
// or the registry needs no authorization. It is never closed where resolving fails.
// The source must be one of the daemon's.
func (s *Source) Ready() <-chan struct{} {
	if s.memory.isAnonymous(s.registryName()) {
		s.hosts.gate.open(false)
	}
	return s.hosts.gate.wait()
}

func (s *Source) registryName() string {
	spec, err := reference.Parse(s.Image())
	if err != nil {
		return ""
	}
	return spec.Hostname()
}

// resolved says that the registry answered.
func (s *Source) resolved() {
	s.hosts.gate.open(false)
	s.hosts.gate.mu.Lock()
	defer s.hosts.gate.mu.Unlock()
	s.memory.setAnonymous(s.registryName(), !s.hosts.gate.challenged)
}
