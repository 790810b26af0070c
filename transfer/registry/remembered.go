package registry

import (
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// settle has the sessions of the hosts remember what an image that could be resolved met:
// a registry that asked for no authorization will ask for none.
func settle(hosts []docker.RegistryHost) {
	for _, h := range hosts {
		if a, ok := h.Authorizer.(*Authorizer); ok && a.challenged() {
			return
		}
	}
	for _, h := range hosts {
		if a, ok := h.Authorizer.(*Authorizer); ok {
			a.session.setOpen()
		}
	}
}

func (s *session) setOpen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = time.Now()
}

// closeSpares closes the connections that the pull which the hosts are of has not used.
func closeSpares(hosts []docker.RegistryHost) {
	for _, h := range hosts {
		if a, ok := h.Authorizer.(*Authorizer); ok {
			for _, t := range a.session.transports {
				t.spares.close()
				t.layers.close()
			}
		}
	}
}

// remembersAny reports whether the hosts' registry is remembered, so that a request to it is
// probably not refused for want of a token.
func remembersAny(hosts []docker.RegistryHost) bool {
	for _, h := range hosts {
		a, ok := h.Authorizer.(*Authorizer)
		if !ok {
			continue
		}
		if _, remembered := a.session.challenge(h.Host); remembered || a.session.isOpen() {
			return true
		}
	}
	return false
}

// areMultiplexed reports whether all that is known of the hosts is that they answer over HTTP/2,
// where many requests at once share a connection.
func areMultiplexed(hosts []docker.RegistryHost) bool {
	multiplexed := false
	for _, h := range hosts {
		a, ok := h.Authorizer.(*Authorizer)
		if !ok {
			return false
		}
		switch a.session.protocol(h.Host) {
		case 2:
			multiplexed = true
		case 1:
			return false
		}
	}
	return multiplexed
}

func (s *session) protocol(host string) int {
	for _, t := range s.transports {
		if p := t.protocol(host); p > 0 {
			return p
		}
	}
	return 0
}

func (s *session) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.open) < challengeTime
}
