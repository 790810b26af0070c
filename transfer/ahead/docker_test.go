package ahead

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
)

// real is a Fetcher over containerd's own fetcher and store.
type real struct {
	*Fetcher
	ctx      context.Context
	server   *hostile.Server
	store    content.Store
	slots    *semaphore.Weighted
	children []ocispec.Descriptor
	layers   []ocispec.Descriptor
}

func newReal(t *testing.T, layers int) *real {
	t.Helper()
	db := storetest.New(t)
	r := &real{
		ctx:    storetest.Leased(namespaces.WithNamespace(t.Context(), "test"), t, db),
		server: hostile.New(t), store: db.ContentStore(), slots: semaphore.NewWeighted(3),
	}
	r.children, r.layers = image(layers)
	for _, c := range r.children {
		r.answer(c, hostile.Content(c.MediaType, []byte(c.Annotations["name"])))
	}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: func(string) ([]docker.RegistryHost, error) {
		return []docker.RegistryHost{r.server.RegistryHost(docker.HostCapabilityPull)}, nil
	}})
	ref := r.server.Host() + "/app:v1"
	opener, err := resolver.Fetcher(r.ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	resolver.(remotes.ResolverWithOptions).SetOptions(transfer.WithDownloadLimiter(r.slots), transfer.WithMaxConcurrentDownloads(3))
	own, err := resolver.Fetcher(r.ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	r.Fetcher = New(r.ctx, Config{Fetcher: own, Opener: opener, Slots: r.slots, Downloads: 3, Store: r.store, Layers: &Layers{}})
	t.Cleanup(r.Close)
	return r
}

func (r *real) answer(desc ocispec.Descriptor, answers ...hostile.Answer) {
	r.server.On("/v2/app/blobs/"+desc.Digest.String(), answers...)
}

// requests returns how often each layer was asked for.
func (r *real) requests() []int {
	paths := r.server.Paths()
	var out []int
	for _, l := range r.layers {
		n := 0
		for _, p := range paths {
			if strings.HasSuffix(p, l.Digest.String()) {
				n++
			}
		}
		out = append(out, n)
	}
	return out
}

// fetchConfig fetches the config, and waits for so many requests for layers.
func (r *real) fetchConfig(t *testing.T, want ...int) {
	t.Helper()
	r.Expect(r.children)
	if err := remotes.Fetch(r.ctx, r.store, r.Fetcher, r.children[0]); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if slices.Equal(r.requests(), want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the layers were asked for %v times, want %v", r.requests(), want)
}

func (r *real) wantFreeSlots(t *testing.T) {
	t.Helper()
	if !r.slots.TryAcquire(3) {
		t.Error("a slot is taken")
	}
}

// containerd's fetcher makes its request at a read of no bytes, and the stream has all bytes after it.
func TestStreamsOfContainerdsFetcher(t *testing.T) {
	t.Parallel()
	r := newReal(t, 4)
	r.fetchConfig(t, 1, 1, 0, 0)
	for _, l := range r.layers {
		if err := remotes.Fetch(r.ctx, r.store, r.Fetcher, l); err != nil {
			t.Error(err)
		}
		if got, err := content.ReadBlob(r.ctx, r.store, l); err != nil || string(got) != l.Annotations["name"] {
			t.Errorf("stored is %q, %v", got, err)
		}
	}
	if got := r.requests(); !slices.Equal(got, []int{1, 1, 1, 1}) {
		t.Errorf("the layers were asked for %v times, want once each", got)
	}
	r.wantFreeSlots(t)
}

// A write that was interrupted goes on where it ended: its layer is not opened ahead.
func TestInterruptedWriteGoesOn(t *testing.T) {
	t.Parallel()
	r := newReal(t, 2)
	w, err := content.OpenWriter(r.ctx, r.store, content.WithRef(remotes.MakeRefKey(r.ctx, r.layers[0])), content.WithDescriptor(r.layers[0]))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write([]byte("lay"))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	r.fetchConfig(t, 0, 1)
	if err := remotes.Fetch(r.ctx, r.store, r.Fetcher, r.layers[0]); err != nil {
		t.Fatal(err)
	}
	for _, q := range r.server.Requests() {
		if strings.HasSuffix(q.Path, r.layers[0].Digest.String()) && !strings.HasPrefix(q.Header.Get("Range"), "bytes=3-") {
			t.Errorf("the layer was asked for with the range %q", q.Header.Get("Range"))
		}
	}
}

// A stream that is read from another place is fetched anew, under a slot of its own.
func TestSeekFetchesAnew(t *testing.T) {
	t.Parallel()
	r := newReal(t, 1)
	r.fetchConfig(t, 1)
	rc, err := r.Fetch(r.ctx, r.layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	for range 2 {
		if _, err := rc.(io.Seeker).Seek(6, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(rc); err != nil || string(got) != "0" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := rc.(io.Seeker).Seek(-1, io.SeekCurrent); err == nil {
		t.Error("a place was found from a position that is not known")
	}
	if err := rc.Close(); err != nil {
		t.Error(err)
	}
	r.wantFreeSlots(t)
}

// A registry that refuses the early request, ends it, or never answers it, costs the pull nothing but that.
func TestRegistryThatFailsEarly(t *testing.T) {
	t.Parallel()
	r := newReal(t, 2)
	r.answer(r.layers[0], hostile.Status(404), hostile.Content("", []byte("layer 0")))
	r.answer(r.layers[1], hostile.Answer{Hang: true})
	r.fetchConfig(t, 1, 1)
	if err := remotes.Fetch(r.ctx, r.store, r.Fetcher, r.layers[0]); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(r.ctx, 50*time.Millisecond)
	defer cancel()
	if err := remotes.Fetch(ctx, r.store, r.Fetcher, r.layers[1]); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the fetch ended with %v", err)
	}
	r.wantFreeSlots(t)
}

// A pull that ends leaves no request behind, whether it was answered or not.
func TestClosedPullLeavesNoRequest(t *testing.T) {
	t.Parallel()
	r := newReal(t, 2)
	r.answer(r.layers[0], hostile.Answer{Hang: true})
	r.answer(r.layers[1], hostile.Answer{Stall: true, Announce: r.layers[1].Size})
	r.fetchConfig(t, 1, 1)
	r.Close()
	r.wantFreeSlots(t)
}
