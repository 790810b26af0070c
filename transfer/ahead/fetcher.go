// Package ahead opens the requests for an image's layers before they are asked for.
//
// containerd's unpacker asks for layers once it has read the image config, which costs a
// round trip, and the handshakes of their connections. A [Fetcher] makes the requests of the first
// layers beside that of the config. Whoever fetches such a layer then gets the open stream;
// nobody reads its body before. What turns out not to be needed is closed.
package ahead

import (
	"context"
	"io"
	"math"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

const (
	// maxStreams is how many layers of one pull are opened ahead, however many may be downloaded
	// at a time: over HTTP/1.1 each has a connection of its own.
	maxStreams = 4
	// maxManifests is how many manifests of one pull may wait for their config to be fetched.
	maxManifests = 16
	// maxLayers is how many layers of a manifest are looked at: overlayfs mounts no more.
	maxLayers = 128

	// maxUnclaimed is how long a layer may be open, or on its way, before it is asked for.
	maxUnclaimed = 10 * time.Second
	// maxOthersFirst is how long it may be once another layer has been asked for: the unpacker
	// asks for all that it needs at once, but a busy disk delays that.
	maxOthersFirst = time.Second
)

// Store tells what is stored in the pull's namespace, or being written.
type Store interface {
	Info(context.Context, digest.Digest) (content.Info, error)
	Status(ctx context.Context, ref string) (content.Status, error)
}

// Config is what a Fetcher works with.
type Config struct {
	// Fetcher is the pull's own. It takes a download slot for each request.
	Fetcher transfer.Fetcher
	// Opener fetches from the same hosts and takes no slot: the Fetcher of this package
	// holds one for each layer that it opens.
	Opener transfer.Fetcher
	// Slots are those of all pulls; nil means that there is no limit.
	Slots *semaphore.Weighted
	// Downloads is how many there are of them; 0 means that there is no limit.
	Downloads int
	Store     Store
	// Layers is what the daemon knows of layers that were opened ahead.
	Layers *Layers
}

// Fetcher fetches the content of one image. It opens layers ahead for one of its manifests.
type Fetcher struct {
	config Config
	ctx    context.Context // of the pull
	cancel context.CancelFunc
	wg     sync.WaitGroup

	asked func()        // a layer of the manifest is asked for, the first time
	ask   chan struct{} // closed then
	end   func()        // no further layer will be asked for
	ended chan struct{} // closed then

	mu       sync.Mutex
	expected map[digest.Digest][]ocispec.Descriptor // layers, by the digest of their config
	started  bool
	unasked  map[digest.Digest]ocispec.Descriptor // of the manifest's layers
	streams  map[digest.Digest]*stream            // that nobody has claimed
}

var _ transfer.Fetcher = (*Fetcher)(nil)

// New returns a Fetcher. The context is that of the pull: it carries the namespace, and
// layers are open no longer than it lasts.
func New(ctx context.Context, config Config) *Fetcher {
	f := &Fetcher{
		config: config, ask: make(chan struct{}), ended: make(chan struct{}),
		expected: map[digest.Digest][]ocispec.Descriptor{}, streams: map[digest.Digest]*stream{},
	}
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.asked = sync.OnceFunc(func() { close(f.ask) })
	f.end = sync.OnceFunc(func() { close(f.ended) })
	return f
}

// Expect tells of a manifest of the image, by what it names and the pull is for: the layers
// are opened once the config is fetched. It must not be called with the children of an index.
func (f *Fetcher) Expect(children []ocispec.Descriptor) {
	var config digest.Digest
	var layers []ocispec.Descriptor
	for _, c := range children {
		switch {
		case images.IsConfigType(c.MediaType):
			config = c.Digest
		case images.IsLayerType(c.MediaType) && len(layers) < maxLayers:
			layers = append(layers, c)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if config != "" && len(layers) > 0 && !f.started && len(f.expected) < maxManifests {
		f.expected[config] = layers
	}
}

// Fetch implements transfer.Fetcher. It hands out an open layer once; any other content, and a
// layer that could not be opened, comes from the pull's own fetcher.
func (f *Fetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if images.IsLayerType(desc.MediaType) {
		f.config.Layers.needed(desc.Digest)
		if s := f.claim(desc); s != nil {
			again := func() (io.ReadCloser, error) { return f.config.Fetcher.Fetch(ctx, desc) }
			if r := s.take(ctx, again); r != nil {
				return r, nil
			}
		}
	} else if layers := f.start(desc.Digest); len(layers) > 0 {
		ctx = f.openBeside(ctx, layers)
	}
	return f.config.Fetcher.Fetch(ctx, desc)
}

// claim returns the layer's stream, once.
func (f *Fetcher) claim(desc ocispec.Descriptor) *stream {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.unasked[desc.Digest]; ok {
		delete(f.unasked, desc.Digest)
		f.asked()
	}
	s := f.streams[desc.Digest]
	if s == nil || s.desc.Size != desc.Size || len(desc.URLs) > 0 {
		return nil
	}
	delete(f.streams, desc.Digest)
	return s
}

// start returns the layers to open where the digest is that of the first config that is fetched.
func (f *Fetcher) start(config digest.Digest) []ocispec.Descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	layers := f.expected[config]
	if f.started || len(layers) == 0 {
		return nil
	}
	f.started, f.expected = true, nil
	f.unasked = map[digest.Digest]ocispec.Descriptor{}
	for _, desc := range layers {
		f.unasked[desc.Digest] = desc
	}
	return layers
}

// openBeside opens layers as soon as a request made with the context that it returns looks
// for a connection: an idle one is for the config, which the unpacker waits for.
func (f *Fetcher) openBeside(ctx context.Context, layers []ocispec.Descriptor) context.Context {
	sent := make(chan struct{})
	once := sync.OnceFunc(func() { close(sent) })
	f.wg.Go(func() {
		needed := f.choose(layers)
		select {
		case <-sent:
		case <-f.ended:
			return
		case <-f.ctx.Done():
			return
		}
		for _, desc := range needed {
			f.open(desc)
		}
		late, cancel := context.WithTimeout(f.ctx, maxUnclaimed)
		defer cancel()
		f.drop(late, f.await(late))
	})
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GetConn: func(string) { once() }})
}

// open opens a layer, where a slot is free and no other pull has the layer open. It does not
// wait for a slot, so that it comes before nobody who does.
func (f *Fetcher) open(desc ocispec.Descriptor) {
	s := &stream{desc: desc, slots: f.config.Slots, opened: make(chan struct{})}
	if !s.tryAcquire() {
		return
	}
	if !f.config.Layers.begin(desc.Digest) {
		s.release()
		return
	}
	s.ended = func() { f.config.Layers.end(desc.Digest) }
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(f.ctx)
	f.wg.Go(func() { s.open(ctx, f.config.Opener) })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams[desc.Digest] = s
}

// await returns once no further claim is to be expected. It reports whether what nobody
// claimed is known not to be needed.
func (f *Fetcher) await(late context.Context) bool {
	asked := f.ask
	var others <-chan time.Time
	for {
		select {
		case <-asked:
			asked, others = nil, time.After(maxOthersFirst)
		case <-others:
			return true
		case <-f.ended:
			return true
		case <-late.Done():
			return false
		}
	}
}

// drop closes what nobody claimed. A request whose answer is on its way is ended late, or with
// the pull, and not before: no body comes until then, and who opens the layer may be fetching a
// token that others wait for, where its authorizer is one that keeps the error (containerd's own).
func (f *Fetcher) drop(late context.Context, unneeded bool) {
	f.mu.Lock()
	left, unasked := f.streams, f.unasked
	f.streams, f.unasked = nil, nil
	f.mu.Unlock()
	for dgst, desc := range unasked {
		if unneeded && len(left) > 0 && !f.there(desc) {
			f.config.Layers.notNeeded(dgst)
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for dgst, s := range left {
		log.G(f.ctx).WithField("digest", dgst).Debug("referrers: a layer was opened ahead, and nobody asked for it")
		wg.Go(func() {
			select {
			case <-s.opened:
			case <-late.Done():
			}
			s.close()
		})
	}
}

// End tells that no further layer will be asked for: the image is unpacked.
func (f *Fetcher) End() { f.end() }

// Close ends what nobody claimed, and returns when it has ended. What was claimed ends with its reader, or
// with the pull's context.
func (f *Fetcher) Close() {
	f.cancel()
	f.wg.Wait()
}

// choose returns the layers to open: the first that are not stored, in the order in which
// they are unpacked, and no more than leave a slot for the config.
func (f *Fetcher) choose(layers []ocispec.Descriptor) []ocispec.Descriptor {
	limit := maxStreams
	if f.config.Downloads > 0 {
		limit = min(limit, f.config.Downloads-1)
	}
	var out []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	for _, desc := range layers {
		if len(out) >= limit {
			break
		}
		if !seen[desc.Digest] && canOpen(desc) && !f.config.Layers.skip(desc.Digest) && !f.there(desc) {
			out = append(out, artifact.Plain(desc))
		}
		seen[desc.Digest] = true
	}
	return out
}

// canOpen reports whether containerd would ask the registry for a layer with the descriptor:
// not where it carries its content, or names another place that has it.
func canOpen(desc ocispec.Descriptor) bool {
	return artifact.Check(desc, math.MaxInt64) == nil && len(desc.URLs) == 0 && len(desc.Data) == 0 &&
		!images.IsNonDistributable(desc.MediaType)
}

// there reports whether the layer is stored, in whole or in part, or it cannot be known. A
// part is being fetched by another pull, or is fetched from where it ends.
func (f *Fetcher) there(desc ocispec.Descriptor) bool {
	if _, err := f.config.Store.Info(f.ctx, desc.Digest); !errdefs.IsNotFound(err) {
		return true
	}
	_, err := f.config.Store.Status(f.ctx, remotes.MakeRefKey(f.ctx, desc))
	return !errdefs.IsNotFound(err)
}
