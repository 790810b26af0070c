package ahead

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptrace"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// fakes stand in for a registry and a store. A fetcher's requests are made when they are
// first read, as those of containerd's are.
type fakes struct {
	blobs    map[digest.Digest]string
	mu       sync.Mutex
	stored   map[digest.Digest]bool
	ingests  map[string]bool
	contents []*fakeContent
	// answer, if not nil, says what the request of a layer is answered with; an error refuses it.
	answer func(context.Context, ocispec.Descriptor) error
	// broken says what the first byte of a layer is answered with.
	broken error
}

func (f *fakes) Info(_ context.Context, dgst digest.Digest) (content.Info, error) {
	if f.stored[dgst] {
		return content.Info{Digest: dgst}, nil
	}
	return content.Info{}, errdefs.ErrNotFound
}

func (f *fakes) Status(_ context.Context, ref string) (content.Status, error) {
	if f.ingests[ref] {
		return content.Status{Ref: ref}, nil
	}
	return content.Status{}, errdefs.ErrNotFound
}

// fetcher is one that belongs to the pull, or the one that opens ahead.
type fetcher struct {
	*fakes
	early bool
}

func (f fetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &fakeContent{fakes: f.fakes, ctx: ctx, desc: desc, early: f.early, r: bytes.NewReader([]byte(f.blobs[desc.Digest]))}
	f.contents = append(f.contents, c)
	return c, nil
}

// fakeContent is what was fetched. It counts what is read of it.
type fakeContent struct {
	*fakes
	ctx    context.Context
	desc   ocispec.Descriptor
	early  bool
	r      *bytes.Reader
	opened bool
	read   int
	closed bool
}

func (c *fakeContent) Read(p []byte) (int, error) {
	if !c.opened {
		c.opened = true
		if trace := httptrace.ContextClientTrace(c.ctx); trace != nil {
			trace.GetConn("registry.example.com:443")
		}
		if c.early && c.answer != nil {
			if err := c.answer(c.ctx, c.desc); err != nil {
				return 0, err
			}
		}
	}
	if len(p) > 0 && c.early && c.broken != nil {
		return 0, c.broken
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.r.Read(p)
	c.read += n
	return n, err
}

func (c *fakeContent) Seek(offset int64, whence int) (int64, error) { return c.r.Seek(offset, whence) }

func (c *fakeContent) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

// opened returns the contents that were fetched ahead, in the order of their layers.
func (f *fakes) opened(layers []ocispec.Descriptor) []*fakeContent {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*fakeContent
	for _, l := range layers {
		for _, c := range f.contents {
			if c.early && c.desc.Digest == l.Digest {
				out = append(out, c)
			}
		}
	}
	return out
}

func named(mediaType, name string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(name), Size: int64(len(name)), Annotations: map[string]string{"name": name}}
}

// image returns the children of a manifest with so many layers.
func image(n int) (children, layers []ocispec.Descriptor) {
	for i := range n {
		layers = append(layers, named(ocispec.MediaTypeImageLayerGzip, fmt.Sprint("layer ", i)))
	}
	return append([]ocispec.Descriptor{named(ocispec.MediaTypeImageConfig, "config")}, layers...), layers
}

// pull is a Fetcher over fakes, with three download slots.
type pull struct {
	*Fetcher
	*fakes
	slots *semaphore.Weighted
}

func newPull(ctx context.Context, t *testing.T, change func(*Config)) *pull {
	t.Helper()
	fake := &fakes{blobs: map[digest.Digest]string{}, stored: map[digest.Digest]bool{}, ingests: map[string]bool{}}
	children, _ := image(6)
	for _, c := range children {
		fake.blobs[c.Digest] = c.Annotations["name"]
	}
	p := &pull{fakes: fake, slots: semaphore.NewWeighted(3)}
	config := Config{Fetcher: fetcher{fake, false}, Opener: fetcher{fake, true}, Slots: p.slots, Downloads: 3, Store: fake, Layers: &Layers{}}
	if change != nil {
		change(&config)
	}
	p.Fetcher = New(ctx, config)
	return p
}

// free reports how many slots are free.
func (p *pull) free() int64 {
	n := int64(0)
	for p.slots.TryAcquire(1) {
		n++
	}
	p.slots.Release(n)
	return n
}

// fetch reads a blob as containerd does.
func (p *pull) fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	rc, err := p.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}
