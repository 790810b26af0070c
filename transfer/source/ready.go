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
	// maxOpen is how many registries are remembered to ask for no authorization.
	maxOpen = 256
	// openTime is how long they are.
	openTime = 10 * time.Minute
)

// openRegistries are those whose last pull was not asked to authorize, with the time,
// in the daemon's life. One that has changed its mind costs a 401 for each
// request that did not wait.
var openRegistries = struct {
	sync.Mutex
	since map[string]time.Time
}{since: map[string]time.Time{}}

func rememberOpen(registry string, open bool) {
	openRegistries.Lock()
	defer openRegistries.Unlock()
	delete(openRegistries.since, registry)
	if !open {
		return
	}
	for oldest := range openRegistries.since { // any: a pull of it costs a round trip more
		if len(openRegistries.since) < maxOpen {
			break
		}
		delete(openRegistries.since, oldest)
	}
	openRegistries.since[registry] = time.Now()
}

func isOpen(registry string) bool {
	openRegistries.Lock()
	defer openRegistries.Unlock()
	since, ok := openRegistries.since[registry]
	return ok && time.Since(since) < openTime
}

// Ready returns a channel that is closed when requests to the registry may be made
// beside the one that resolves the image: that one is authorized and on its way,
// or the registry needs no authorization. It is never closed where resolving fails.
// The source must be one of the daemon's.
func (s *Source) Ready() <-chan struct{} {
	if isOpen(s.registryName()) {
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
	rememberOpen(s.registryName(), !s.hosts.gate.challenged)
}
