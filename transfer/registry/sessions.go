package registry

import (
	"context"
	"crypto/rand"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
)

const (
	// MaxSessions is how many registries are remembered; the one that was not used for
	// longest is forgotten first.
	MaxSessions = 256
	// sessionTime is how long a registry that no pull uses is remembered. Idle connections
	// end before, after idleTime.
	sessionTime = time.Hour
	// challengeTime is how long a registry is taken to ask for the authorization, or for
	// none, that it asked an image's pull for.
	challengeTime = 10 * time.Minute
)

// Sessions are what the daemon remembers of registries between pulls: connections,
// challenges and tokens. They live in memory only. The zero value is ready, and safe for
// concurrent use.
//
// A session belongs to one registry as one hosts directory configures it. It ends when the
// configuration changes: the next pull gets a new one.
type Sessions struct {
	// Observer is told what sessions do; nil tells no one. It must be set before the first
	// use.
	Observer Observer

	mu     sync.Mutex
	known  map[sessionKey]*session
	tokens tokens
}

// Observer is told what sessions do. Its methods must be quick and safe for concurrent use.
type Observer interface {
	// Connected is told of each connection that was opened.
	Connected()
	// Requested is told of each answer, with its protocol: "HTTP/1.1", "HTTP/2.0".
	Requested(protocol string)
	// Authorized is told of each token that a request was given: fetched for it, or
	// remembered.
	Authorized(remembered bool)
}

// sessionKey says whose configuration a session has.
type sessionKey struct {
	registry string // as references name it
	dir      string // of hosts.toml, "" where there is none
	scheme   string // that the client asked for
}

// session is what is remembered of one registry.
type session struct {
	sessions *Sessions
	// id is the session's own, never another's. What is remembered of a registry in one place
	// for all sessions is filed under it, and so ends with the configuration.
	id     string
	config string                // fingerprint of the files that configure it
	hosts  []docker.RegistryHost // without authorizers
	// transports are those of the hosts' clients.
	transports map[*http.Client]*transport
	secret     [32]byte // of the hash that tells clients apart

	mu         sync.Mutex
	used       time.Time
	challenges map[string]challenge // by host
	healths    map[string]*health   // by host
	open       time.Time            // when an image was resolved without a challenge
}

// Hosts returns the registry's hosts as hosts.toml has them, for one pull. Clients share
// the session's connections. Their authorizer is the pull's own, of type *[Authorizer]:
// it asks options.Credentials before it uses what the session remembers of that client.
// Options other than HostDir, Credentials, DefaultScheme and UpdateClient are not used.
func (s *Sessions) Hosts(ctx context.Context, registry string, options config.HostOptions) ([]docker.RegistryHost, error) {
	session, err := s.open(ctx, registry, options)
	if err != nil {
		return nil, err
	}
	return session.forPull(options)
}

// open returns the session, a new one where the configuration has changed.
func (s *Sessions) open(ctx context.Context, registry string, options config.HostOptions) (*session, error) {
	dir, err := hostDir(options, registry)
	if err != nil {
		return nil, err
	}
	key := sessionKey{registry, dir, options.DefaultScheme}
	before := fingerprint(dir)
	if known := s.find(key, before); known != nil {
		return known, nil
	}
	made := &session{
		sessions: s, id: rand.Text(), config: before, used: time.Now(),
		transports: map[*http.Client]*transport{}, challenges: map[string]challenge{}, healths: map[string]*health{},
	}
	_, _ = rand.Read(made.secret[:]) // never fails (crypto/rand)
	configure := config.ConfigureHosts(ctx, config.HostOptions{
		HostDir:       func(string) (string, error) { return dir, nil },
		DefaultScheme: options.DefaultScheme,
		UpdateClient:  made.prepare,
	})
	if made.hosts, err = configure(registry); err != nil {
		return nil, err
	}
	if fingerprint(dir) != before {
		return made, nil // changed while it was read: good for this pull alone
	}
	return s.add(key, made), nil
}

// find returns the session that is known, nil where its configuration is not the given one.
func (s *Sessions) find(key sessionKey, config string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[key]
	if known == nil || known.config != config || known.idle() > sessionTime {
		return nil
	}
	known.touch()
	return known
}

// add remembers the session, unless another pull was first, and ends those that are in
// excess.
func (s *Sessions) add(key sessionKey, made *session) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[key]; known != nil {
		if known.config == made.config && known.idle() <= sessionTime {
			return known
		}
		s.end(key)
	}
	oldest := key
	for other, session := range s.known {
		if session.idle() > sessionTime {
			s.end(other)
		} else if oldest == key || session.idle() > s.known[oldest].idle() {
			oldest = other
		}
	}
	if len(s.known) >= MaxSessions {
		s.end(oldest)
	}
	if s.known == nil {
		s.known = map[sessionKey]*session{}
	}
	s.known[key] = made
	return made
}

// end forgets a session. Pulls that use it go on with its connections, which then end as
// they become idle.
func (s *Sessions) end(key sessionKey) {
	session := s.known[key]
	delete(s.known, key)
	s.tokens.forget(session)
	session.closeIdle()
}

// Close forgets all sessions and closes connections that no request uses.
func (s *Sessions) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.known {
		s.end(key)
	}
}

func (s *session) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = time.Now()
}

func (s *session) idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.used)
}

func (s *session) closeIdle() {
	for _, t := range s.transports {
		t.CloseIdleConnections()
	}
}

// prepare has a client that containerd made send its requests through a transport.
func (s *session) prepare(client *http.Client) error {
	switch t := client.Transport.(type) {
	case *http.Transport:
		s.transports[client] = newTransport(t, s.sessions.Observer)
		client.Transport = s.transports[client]
	case *transport: // a copy of a client that is known, with headers of its own
		s.transports[client] = t
	}
	return nil
}

// roundTripper returns what sends the requests of one pull that the host's client had. A
// host that is asked over TLS and else without is asked anew in every pull: containerd's
// fallback never asks again over TLS where it once failed.
func (s *session) roundTripper(h docker.RegistryHost) http.RoundTripper {
	t := s.transports[h.Client]
	if h.Client.Transport != http.RoundTripper(t) {
		return docker.NewHTTPFallback(t)
	}
	return t
}

// forPull returns the hosts with clients and authorizers of one pull. Hosts that
// containerd gives one client, for which they are the same to a token service, share both.
func (s *session) forPull(options config.HostOptions) ([]docker.RegistryHost, error) {
	hosts := make([]docker.RegistryHost, len(s.hosts))
	made := map[*http.Client]*Authorizer{}
	for i, h := range s.hosts {
		authorizer := made[h.Client]
		if authorizer == nil {
			authorizer = &Authorizer{session: s, origin: h.Client, header: h.Header, credentials: options.Credentials, began: time.Now()}
			client := &http.Client{Transport: doubting{s.roundTripper(h), authorizer}}
			if options.UpdateClient != nil {
				if err := options.UpdateClient(client); err != nil {
					return nil, err
				}
				authorizer.origin = client // another pull must not wait for what this one's writes, or fail with it
			}
			authorizer.client = client
			made[h.Client] = authorizer
		}
		h.Client, h.Authorizer = authorizer.client, authorizer
		hosts[i] = h
	}
	return hosts, nil
}
