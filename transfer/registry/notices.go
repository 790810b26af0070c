package registry

import (
	"container/list"
	"sync"
)

// maxNotices is how many notices are remembered to have been told. The least recent is told
// again: any client may name any number of registries.
const maxNotices = 1024

// Notices remember what the operator has been told of each host, in the daemon's life.
// Their zero value is ready, and safe for concurrent use.
type Notices struct {
	mu     sync.Mutex
	told   map[notice]*list.Element
	recent list.List // of notice, the last met first
}

// notice is one thing to tell of a host.
type notice struct {
	about about
	host  string
}

type about int

const (
	aboutCapability about = iota // a mirror is asked that does not declare the capability
	aboutEndpoint                // a host is taken to have no referrers endpoint
)

// SetNotices has the repository tell the operator of each host only what n has not seen
// told; nil tells every time. It must be called before the first request.
func (r *Repository) SetNotices(n *Notices) { r.notices = n }

// first reports whether the notice is met for the first time.
func (n *Notices) first(about about, host string) bool {
	if n == nil {
		return true
	}
	met := notice{about, host}
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.told[met]; e != nil {
		n.recent.MoveToFront(e)
		return false
	}
	if n.told == nil {
		n.told = map[notice]*list.Element{}
	}
	n.told[met] = n.recent.PushFront(met)
	if len(n.told) > maxNotices {
		delete(n.told, n.recent.Remove(n.recent.Back()).(notice))
	}
	return true
}
