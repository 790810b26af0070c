package gather

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
)

// maxHeld is how many bytes of manifests wait in memory for their turn; what is more is
// read again.
const maxHeld = 16 << 20

// turn keeps the registry's order among referrers that only their manifests decide on,
// where the cap has no room for all of them: which are taken must not depend on whose
// manifest comes first. It is nil where all have room.
type turn struct {
	roomy   bool            // it has room whatever those before it turn out to be
	before  <-chan struct{} // closed when all that are listed before are decided on
	decided chan struct{}   // closed when this one is as well
	once    sync.Once
}

// inTurn gives each of the candidates its turn. As many of the first as there is room for
// need not wait for it, so that one that hangs keeps no more waiting than it must.
func inTurn(candidates []candidate, room int) {
	first := make(chan struct{})
	close(first)
	before := (<-chan struct{})(first)
	for i := range candidates {
		t := &turn{roomy: i < room, before: before, decided: make(chan struct{})}
		candidates[i].turn, before = t, t.decided
	}
}

// pass waits for the turn and ends it.
func (t *turn) pass(ctx context.Context) {
	if t == nil {
		return
	}
	select {
	case <-t.before:
	case <-ctx.Done():
	}
	t.once.Do(func() { close(t.decided) })
}

// await judges a candidate that has a turn, and waits for it, if it is wanted, to have
// room. It holds neither a slot nor an ingest while it waits.
func (g *Gather) await(s *subject, c *candidate) error {
	if c.turn == nil {
		return nil
	}
	data, err := g.look(s, c)
	if err != nil {
		return err
	}
	if n := int64(len(data)); g.held.Add(n) <= maxHeld {
		c.manifest, c.held = data, n
	} else {
		g.held.Add(-n)
		g.waste(data)
	}
	if !c.turn.roomy {
		select {
		case <-c.turn.before:
		case <-g.ctx.Done():
			return context.Cause(g.ctx)
		}
	}
	if !s.hasRoom() {
		g.waste(c.manifest)
		return g.noRoom(*c)
	}
	turn := c.turn
	g.wg.Go(func() { turn.pass(g.ctx) }) // its blobs keep no one waiting
	c.ask = false                        // it is answered
	return nil
}

// look returns the candidate's manifest if it is wanted. Nothing is stored.
func (g *Gather) look(s *subject, c *candidate) ([]byte, error) {
	if err := remote.Check(plain(c.Descriptor), remote.MaxManifestSize); err != nil {
		return nil, over(LimitManifest, err)
	}
	if err := g.downloads.Acquire(g.ctx, 1); err != nil {
		return nil, err
	}
	data, err := g.peek(*c, plain(c.Descriptor))
	g.downloads.Release(1)
	var sized otherSize
	if errors.As(err, &sized) {
		data, c.Size, err = sized.data, int64(len(sized.data)), nil
	}
	if err != nil {
		return nil, err
	}
	m, err := artifact.Parse(data, c.MediaType, MaxChildren)
	if err != nil {
		err = over(LimitManifest, fmt.Errorf("manifest %s: %w", c.Digest, err))
	} else {
		_, err = g.judge(s, *c, m)
	}
	if err != nil {
		g.waste(data)
		return nil, err
	}
	return data, nil
}
