package outcome

// Memory is something that the daemon remembered of a registry host and that a request used
// in place of finding it out.
type Memory struct {
	Host string     `json:"host"`
	Kind MemoryKind `json:"kind"`
	// Age is how long ago it was learnt, or the connection was last used, as
	// time.Duration writes it.
	Age string `json:"age"`
}

// MemoryKind is what was remembered.
type MemoryKind string

// The kinds of memory.
const (
	// MemoryConnection is a connection that an earlier request opened.
	MemoryConnection MemoryKind = "connection"
	// MemoryChallenge is how the host wants requests to be authorized.
	MemoryChallenge MemoryKind = "challenge"
	// MemoryToken is a token that this client's credentials got earlier.
	MemoryToken MemoryKind = "token"
	// MemoryCapability is that the host has no referrers API.
	MemoryCapability MemoryKind = "capability"
)
