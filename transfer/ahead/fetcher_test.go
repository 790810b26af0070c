package ahead

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// read has the config fetched, so that layers are opened.
func (p *pull) readConfig(t *testing.T, children []ocispec.Descriptor) {
	t.Helper()
	p.Expect(children)
	if got, err := p.fetch(t.Context(), children[0]); err != nil || string(got) != "config" {
		t.Fatalf("the config is %q, %v", got, err)
	}
	synctest.Wait()
}

// The first layers are open when the config has come, and nobody has read them. Whoever fetches them
// gets these streams; each is closed once, and its slot is free when it was read.
func TestOpenLayersAreHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPull(t.Context(), t, nil)
		children, layers := image(4)
		p.readConfig(t, children)
		early := p.opened(layers)
		if len(early) != 2 || early[0].desc.Digest != layers[0].Digest || early[1].desc.Digest != layers[1].Digest {
			t.Fatalf("%d layers were opened, want the first two", len(early))
		}
		if n := p.free(); n != 1 {
			t.Errorf("%d slots are free, want 1", n)
		}
		for i, l := range layers {
			if i < 2 && (!early[i].opened || early[i].read > 0) {
				t.Errorf("layer %d: open %t, %d bytes read", i, early[i].opened, early[i].read)
			}
			if i < 2 && early[i].desc.Annotations != nil {
				t.Errorf("layer %d was opened with annotations", i)
			}
			got, err := p.fetch(t.Context(), l)
			if err != nil || string(got) != p.blobs[l.Digest] {
				t.Errorf("layer %d is %q, %v", i, got, err)
			}
		}
		if n := len(p.contents); n != 5 {
			t.Errorf("%d requests were made, want 5", n)
		}
		for _, c := range p.contents {
			if !c.closed {
				t.Errorf("%s was left open", c.desc.Digest)
			}
		}
		if n := p.free(); n != 3 {
			t.Errorf("%d slots are free, want 3", n)
		}
		p.Close()
	})
}

// Layers that containerd would not ask the registry for, or that are there, are not opened.
func TestLayersThatAreNotOpened(t *testing.T) {
	with := func(change func(*ocispec.Descriptor)) func(*pull, *[]ocispec.Descriptor) {
		return func(_ *pull, layers *[]ocispec.Descriptor) { change(&(*layers)[0]) }
	}
	for name, tc := range map[string]struct {
		change func(*pull, *[]ocispec.Descriptor)
		want   []int // of the layers
	}{
		"all are needed": {func(*pull, *[]ocispec.Descriptor) {}, []int{0, 1}},
		"one is stored":  {func(p *pull, l *[]ocispec.Descriptor) { p.stored[(*l)[0].Digest] = true }, []int{1, 2}},
		"one is being written": {func(p *pull, l *[]ocispec.Descriptor) {
			p.ingests["layer-"+(*l)[1].Digest.String()] = true
		}, []int{0, 2}},
		"another pull has one open":     {func(p *pull, l *[]ocispec.Descriptor) { p.config.Layers.begin((*l)[0].Digest) }, []int{1, 2}},
		"one was not needed before":     {func(p *pull, l *[]ocispec.Descriptor) { p.config.Layers.notNeeded((*l)[0].Digest) }, []int{1, 2}},
		"one twice":                     {func(_ *pull, l *[]ocispec.Descriptor) { (*l)[1] = (*l)[0] }, []int{0, 2}},
		"a foreign layer":               {with(func(d *ocispec.Descriptor) { d.URLs = []string{"https://example.com/layer"} }), []int{1, 2}},
		"one that is not distributed":   {with(func(d *ocispec.Descriptor) { d.MediaType = ocispec.MediaTypeImageLayerNonDistributableGzip }), []int{1, 2}}, //nolint:staticcheck // such images exist
		"content within the descriptor": {with(func(d *ocispec.Descriptor) { d.Data = []byte("layer 0") }), []int{1, 2}},
		"size 0":                        {with(func(d *ocispec.Descriptor) { d.Size = 0 }), []int{1, 2}},
		"a negative size":               {with(func(d *ocispec.Descriptor) { d.Size = -1 }), []int{1, 2}},
		"a digest that is none":         {with(func(d *ocispec.Descriptor) { d.Digest = "sha256:../../x" }), []int{1, 2}},
		"one download at a time":        {func(p *pull, _ *[]ocispec.Descriptor) { p.config.Downloads = 1 }, nil},
		"no limit":                      {func(p *pull, _ *[]ocispec.Descriptor) { p.config.Downloads = 0 }, []int{0, 1, 2, 3}},
		"10,000 layers": {func(p *pull, l *[]ocispec.Descriptor) {
			p.config.Downloads = 100
			_, *l = image(10_000)
		}, []int{0, 1, 2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPull(t.Context(), t, nil)
			_, layers := image(6)
			tc.change(p, &layers)
			var got, want []string
			for _, l := range p.choose(layers) {
				got = append(got, l.Digest.String())
			}
			for _, i := range tc.want {
				want = append(want, layers[i].Digest.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("opened are %q, want %q", got, want)
			}
		})
	}
}

// Of an image that is more than one, or none that is unpacked, at most one manifest's layers are opened.
func TestOnlyOneManifestsLayersAreOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPull(t.Context(), t, nil)
		artifact, _ := image(2)
		artifact[0].MediaType = "application/vnd.example.config"
		p.Expect(artifact)
		p.Expect(nil)
		if _, err := p.fetch(t.Context(), artifact[0]); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			p.Expect([]ocispec.Descriptor{named(ocispec.MediaTypeImageConfig, fmt.Sprint("config ", i)), named(ocispec.MediaTypeImageLayerGzip, fmt.Sprint("layer ", i))})
		}
		if n := len(p.expected); n != maxManifests {
			t.Errorf("%d manifests are remembered, want %d", n, maxManifests)
		}
		for i := range 3 {
			if _, err := p.fetch(t.Context(), named(ocispec.MediaTypeImageConfig, fmt.Sprint("config ", i))); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		early := 0
		for _, c := range p.contents {
			if c.early {
				early++
			}
		}
		if early != 1 {
			t.Errorf("%d layers were opened, want 1", early)
		}
		p.Close()
	})
}

// Layers are not opened before others who wait for a slot.
func TestOpeningWaitsForNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		taken int64
		want  int
	}{
		"no slot taken":     {0, 2},
		"all slots taken":   {3, 0},
		"all slots but one": {2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPull(t.Context(), t, nil)
				p.slots.TryAcquire(tc.taken)
				children, layers := image(4)
				p.readConfig(t, children)
				if n := len(p.opened(layers)); n != tc.want {
					t.Errorf("%d layers were opened, want %d", n, tc.want)
				}
				p.Close()
				if n := p.free(); n != 3-tc.taken {
					t.Errorf("%d slots are free, want %d", n, 3-tc.taken)
				}
			})
		})
	}
}

// What nobody asks for is closed: when the image is unpacked, soon after other layers were
// asked for, after a while in any case, and with the pull.
func TestUnneededLayersAreClosed(t *testing.T) {
	for name, tc := range map[string]struct {
		end   func(t *testing.T, p *pull, layers []ocispec.Descriptor, cancel func())
		noted bool // not to be opened again
	}{
		"the image is unpacked": {func(_ *testing.T, p *pull, _ []ocispec.Descriptor, _ func()) { p.End() }, true},
		"others were asked for": {func(t *testing.T, p *pull, layers []ocispec.Descriptor, _ func()) {
			if _, err := p.fetch(t.Context(), layers[3]); err != nil {
				t.Error(err)
			}
			time.Sleep(maxOthersFirst)
		}, true},
		"nothing happens":       {func(*testing.T, *pull, []ocispec.Descriptor, func()) { time.Sleep(maxUnclaimed) }, false},
		"the pull is cancelled": {func(_ *testing.T, _ *pull, _ []ocispec.Descriptor, cancel func()) { cancel() }, false},
		"the pull fails":        {func(_ *testing.T, p *pull, _ []ocispec.Descriptor, _ func()) { p.Close() }, false},
	} {
		for _, answered := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, answered %t", name, answered), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					p := newPull(ctx, t, nil)
					if !answered {
						p.answer = func(ctx context.Context, _ ocispec.Descriptor) error {
							<-ctx.Done()
							return ctx.Err()
						}
					}
					children, layers := image(4)
					p.readConfig(t, children)
					if n := p.free(); n != 1 {
						t.Fatalf("%d slots are free, want 1", n)
					}
					tc.end(t, p, layers, cancel)
					synctest.Wait()
					if !answered {
						// A request is not ended while it may be getting a token.
						time.Sleep(maxUnclaimed)
						synctest.Wait()
					}
					if n := p.free(); n != 3 {
						t.Errorf("%d slots are free, want 3", n)
					}
					for i, c := range p.opened(layers) {
						if !c.closed || c.read > 0 {
							t.Errorf("layer %d: closed %t, %d bytes read", i, c.closed, c.read)
						}
					}
					for i, l := range layers {
						if got, want := p.config.Layers.skip(l.Digest), tc.noted && (i < 3 || name != "others were asked for"); got != want {
							t.Errorf("layer %d is noted as not needed: %t, want %t", i, got, want)
						}
					}
					p.Close()
				})
			})
		}
	}
}

// A layer that was not needed is opened again once a pull asked for it; the memory is bounded.
func TestLayersThatWereNotNeeded(t *testing.T) {
	t.Parallel()
	var l Layers
	for i := range 2 * maxUnneeded {
		l.notNeeded(named("", fmt.Sprint(i)).Digest)
	}
	last := named("", fmt.Sprint(2*maxUnneeded-1)).Digest
	if n := len(l.unneeded); n != maxUnneeded || !l.skip(last) {
		t.Errorf("%d layers are remembered, want %d; the last: %t", n, maxUnneeded, l.skip(last))
	}
	l.needed(last)
	if l.skip(last) {
		t.Error("a layer that was asked for is not opened")
	}
	if !l.begin(last) || l.begin(last) {
		t.Error("a layer is open twice")
	}
	l.end(last)
	if !l.begin(last) {
		t.Error("a layer that was open cannot be opened again")
	}
}

// What goes wrong with a request that nobody asked for is not the pull's: the layer is fetched as if
// it had not been made.
func TestErrorsOfOpeningAreNobodys(t *testing.T) {
	refused := errors.New("refused")
	for name, change := range map[string]func(*pull){
		"refused":                      func(p *pull) { p.answer = func(context.Context, ocispec.Descriptor) error { return refused } },
		"broken before it was read":    func(p *pull) { p.broken = refused },
		"another size than that asked": func(*pull) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPull(t.Context(), t, nil)
				change(p)
				children, layers := image(2)
				if name == "another size than that asked" {
					children[1].Size++
				}
				p.readConfig(t, children)
				for i, l := range layers {
					if got, err := p.fetch(t.Context(), l); err != nil || string(got) != p.blobs[l.Digest] {
						t.Errorf("layer %d is %q, %v", i, got, err)
					}
				}
				p.Close()
				if n := p.free(); n != 3 {
					t.Errorf("%d slots are free, want 3", n)
				}
			})
		})
	}
}

// A fetch ends with its own context, even while the answer to the early request is awaited.
func TestFetchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPull(t.Context(), t, nil)
		p.answer = func(ctx context.Context, _ ocispec.Descriptor) error {
			<-ctx.Done()
			return ctx.Err()
		}
		children, layers := image(2)
		p.readConfig(t, children)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		rc, err := p.Fetch(ctx, layers[0])
		if err == nil { // of the pull's own fetcher, with the context that has ended
			rc.Close()
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("the fetch ended after %v", d)
		}
		p.Close()
		if n := p.free(); n != 3 {
			t.Errorf("%d slots are free, want 3", n)
		}
	})
}
