package ahead

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// maxUnneeded is how many layers are remembered not to have been needed.
const maxUnneeded = 1024

// Layers is what a daemon knows of layers between its pulls: those that are open, which no other
// pull opens as well, since containerd fetches each once; and those that were opened in vain, which
// are opened no more until one is asked for. Their snapshots are there, though their content
// is not, or another namespace shares it. The zero value is ready.
type Layers struct {
	mu       sync.Mutex
	open     map[digest.Digest]bool
	unneeded map[digest.Digest]bool
}

// skip reports whether the layer is not to be opened ahead.
func (l *Layers) skip(dgst digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[dgst] || l.unneeded[dgst]
}

// begin reports whether the layer may be opened, and notes it. end must follow then.
func (l *Layers) begin(dgst digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[dgst] {
		return false
	}
	if l.open == nil {
		l.open = map[digest.Digest]bool{}
	}
	l.open[dgst] = true
	return true
}

func (l *Layers) end(dgst digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, dgst)
}

// notNeeded notes that the layer was opened in vain.
func (l *Layers) notNeeded(dgst digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unneeded == nil {
		l.unneeded = map[digest.Digest]bool{}
	}
	for other := range l.unneeded { // any: a pull of it costs a request more
		if len(l.unneeded) < maxUnneeded {
			break
		}
		delete(l.unneeded, other)
	}
	l.unneeded[dgst] = true
}

// needed notes that the layer is asked for.
func (l *Layers) needed(dgst digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unneeded, dgst)
}
