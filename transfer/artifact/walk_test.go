package artifact

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// graph is content that manifests name, and what a walk did with it. Each piece has a
// name, which is the content that its digest is of.
type graph struct {
	content map[digest.Digest]*Manifest
	names   map[digest.Digest]string

	calls []string // "manifest NAME", "blob NAME of PARENT", "leave NAME"
	// after is called at the end of each call, with its number, and returns what that
	// returns.
	after func(call int) error
}

func newGraph() *graph {
	return &graph{content: map[digest.Digest]*Manifest{}, names: map[digest.Digest]string{}, after: func(int) error { return nil }}
}

// named returns the descriptor of a piece.
func (g *graph) named(mediaType, name string) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(name), Size: int64(len(name))}
	g.names[d.Digest] = name
	return d
}

func (g *graph) blob(name string) ocispec.Descriptor { return g.named("text/plain", name) }

// manifest makes a manifest that names blobs.
func (g *graph) manifest(name string, blobs ...ocispec.Descriptor) ocispec.Descriptor {
	d := g.named(manifestType, name)
	g.content[d.Digest] = &Manifest{MediaType: manifestType, Blobs: blobs}
	return d
}

// index makes an index.
func (g *graph) index(name string, entries ...ocispec.Descriptor) ocispec.Descriptor {
	d := g.named(indexType, name)
	g.content[d.Digest] = &Manifest{MediaType: indexType, Manifests: entries}
	return d
}

func (g *graph) called(call string) error {
	g.calls = append(g.calls, call)
	return g.after(len(g.calls))
}

func (g *graph) visitor() Visitor {
	return Visitor{
		Manifest: func(_ context.Context, desc ocispec.Descriptor, _ []byte) (*Manifest, error) {
			return g.content[desc.Digest], g.called("manifest " + g.names[desc.Digest])
		},
		Blob: func(_ context.Context, parent, desc ocispec.Descriptor, _ []byte) error {
			return g.called("blob " + g.names[desc.Digest] + " of " + g.names[parent.Digest])
		},
		Leave: func(_ context.Context, desc ocispec.Descriptor, _ *Manifest) error {
			return g.called("leave " + g.names[desc.Digest])
		},
	}
}

func (g *graph) walk(ctx context.Context, root ocispec.Descriptor) error {
	g.calls = nil
	return Walk(ctx, root, g.content[root.Digest], g.visitor())
}

func TestWalk(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		make func(g *graph) ocispec.Descriptor
		want []string
	}{
		{"nothing", func(g *graph) ocispec.Descriptor { return g.manifest("root") }, []string{"leave root"}},
		{
			"config and layers, in their order",
			func(g *graph) ocispec.Descriptor {
				return g.manifest("root", g.blob("config"), g.blob("second"), g.blob("first"))
			},
			[]string{"blob config of root", "blob second of root", "blob first of root", "leave root"},
		}, {
			"config and layers that claim to be manifests",
			func(g *graph) ocispec.Descriptor {
				return g.manifest("root", g.index("index", g.blob("beneath")), g.manifest("manifest", g.blob("beneath")), g.named(MediaTypeArtifactManifest, "artifact"))
			},
			[]string{"blob index of root", "blob manifest of root", "blob artifact of root", "leave root"},
		}, {
			"entries of an index that are no manifests",
			func(g *graph) ocispec.Descriptor {
				return g.index("root", g.blob("text"), g.named("", "untyped"), g.named(strings.ToUpper(manifestType), "capitals"), g.named(ocispec.MediaTypeImageConfig, "config"))
			},
			[]string{"blob text of root", "blob untyped of root", "blob capitals of root", "blob config of root", "leave root"},
		}, {
			"depth first, a manifest left when all beneath it has been visited",
			func(g *graph) ocispec.Descriptor {
				return g.index("root", g.index("inner", g.manifest("a", g.blob("a1"), g.blob("a2"))), g.manifest("b", g.blob("b1")))
			},
			[]string{"manifest inner", "manifest a", "blob a1 of a", "blob a2 of a", "leave a", "leave inner", "manifest b", "blob b1 of b", "leave b", "leave root"},
		}, {
			"copies of one descriptor",
			func(g *graph) ocispec.Descriptor {
				a := g.manifest("a", g.blob("x"), g.blob("x"), g.blob("x"))
				return g.index("root", a, a, g.blob("x"), a)
			},
			[]string{"manifest a", "blob x of a", "leave a", "leave root"},
		}, {
			"the same child under two indexes, and beside them",
			func(g *graph) ocispec.Descriptor {
				a := g.manifest("a", g.blob("x"))
				return g.index("root", g.index("left", a), g.index("right", a, g.manifest("b", g.blob("x"))), a)
			},
			[]string{"manifest left", "manifest a", "blob x of a", "leave a", "leave left", "manifest right", "manifest b", "leave b", "leave right", "leave root"},
		}, {
			"one digest as a manifest and as a blob",
			func(g *graph) ocispec.Descriptor {
				a := g.manifest("a", g.blob("x"))
				layer := a
				layer.MediaType = "text/plain"
				return g.index("root", layer, a, g.manifest("b", a, layer), layer, a)
			},
			[]string{"blob a of root", "manifest a", "blob x of a", "leave a", "manifest b", "leave b", "leave root"},
		}, {
			"a manifest that the visitor does not have",
			func(g *graph) ocispec.Descriptor {
				gone := g.manifest("gone", g.blob("beneath"))
				delete(g.content, gone.Digest)
				return g.index("root", gone, g.manifest("a"), gone)
			},
			[]string{"manifest gone", "manifest a", "leave a", "leave root"},
		}, {
			"a loop, which only a damaged store holds",
			func(g *graph) ocispec.Descriptor {
				root := g.index("root", g.index("inner"))
				g.index("inner", root, g.manifest("a"))
				return root
			},
			[]string{"manifest inner", "manifest a", "leave a", "leave inner", "leave root"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := newGraph()
			if err := g.walk(t.Context(), tc.make(g)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(g.calls, tc.want) {
				t.Errorf("got  %q\nwant %q", g.calls, tc.want)
			}
		})
	}
}

func TestWalkPassesOverWhatTheVisitorLeavesOut(t *testing.T) {
	t.Parallel()
	g := newGraph()
	root := g.index("root", g.blob("x"), g.manifest("a", g.blob("y")))
	visit := g.visitor()
	visit.Blob, visit.Leave = nil, nil
	if err := Walk(t.Context(), root, g.content[root.Digest], visit); err != nil || !slices.Equal(g.calls, []string{"manifest a"}) {
		t.Errorf("%q, %v", g.calls, err)
	}
}

func TestWalkIsBounded(t *testing.T) {
	t.Parallel()
	nested := func(g *graph, levels int, below ...ocispec.Descriptor) ocispec.Descriptor {
		d := g.index("level 0", below...)
		for i := range levels {
			d = g.index(fmt.Sprint("level ", i+1), d)
		}
		return d
	}
	blobs := func(g *graph, of string, n int) (out []ocispec.Descriptor) {
		for i := range n {
			out = append(out, g.blob(fmt.Sprint(of, i)))
		}
		return out
	}
	for _, tc := range []struct {
		name  string
		make  func(g *graph) ocispec.Descriptor
		says  string // "" for no error
		calls int    // at most
	}{
		{"indexes as deep as they may lie", func(g *graph) ocispec.Descriptor { return nested(g, MaxNesting-1, g.manifest("a", g.blob("x"))) }, "", 7},
		{"an index of nothing one deeper", func(g *graph) ocispec.Descriptor { return nested(g, MaxNesting) }, "", 5},
		{"one deeper", func(g *graph) ocispec.Descriptor { return nested(g, MaxNesting, g.manifest("a", g.blob("x"))) }, "more than 2 deep", MaxNesting},
		{"one deeper, with blobs", func(g *graph) ocispec.Descriptor { return nested(g, MaxNesting, g.blob("x")) }, "more than 2 deep", MaxNesting},
		{"far deeper", func(g *graph) ocispec.Descriptor { return nested(g, 500, g.manifest("a")) }, "more than 2 deep", MaxNesting},
		{"as many blobs as may be", func(g *graph) ocispec.Descriptor { return g.manifest("root", blobs(g, "", MaxContent)...) }, "", MaxContent + 1},
		{"one more", func(g *graph) ocispec.Descriptor { return g.manifest("root", blobs(g, "", MaxContent+1)...) }, "more than 10000", MaxContent},
		{"as many copies as may be", func(g *graph) ocispec.Descriptor {
			return g.manifest("root", slices.Repeat(blobs(g, "", 1), MaxContent)...)
		}, "", 2},
		{"one copy more", func(g *graph) ocispec.Descriptor {
			return g.manifest("root", slices.Repeat(blobs(g, "", 1), MaxContent+1)...)
		}, "more than 10000", 1},
		{"copies in a thousand manifests", func(g *graph) ocispec.Descriptor {
			var entries []ocispec.Descriptor
			for i := range 1000 {
				entries = append(entries, g.manifest(fmt.Sprint("manifest", i), slices.Repeat(blobs(g, "", 1), 1000)...))
			}
			return g.index("root", entries...)
		}, "more than 10000", 25},
		{"manifests of a thousand blobs", func(g *graph) ocispec.Descriptor {
			var entries []ocispec.Descriptor
			for i := range 15 {
				entries = append(entries, g.manifest(fmt.Sprint("manifest", i), blobs(g, fmt.Sprint(i, "/"), 1000)...))
			}
			return g.index("root", entries...)
		}, "more than 10000", MaxContent + 25},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := newGraph()
			err := g.walk(t.Context(), tc.make(g))
			if tc.says == "" && err != nil || tc.says != "" && (!errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("%v, want one that says %q", err, tc.says)
			}
			if len(g.calls) > tc.calls {
				t.Errorf("%d calls, want at most %d", len(g.calls), tc.calls)
			}
		})
	}
}

// One digest has one size: a reader that believes the other fetches more, or less.
func TestWalkRefusesTwoSizesOfOneDigest(t *testing.T) {
	t.Parallel()
	longer := func(d ocispec.Descriptor) ocispec.Descriptor {
		d.Size++
		return d
	}
	for _, tc := range []struct {
		name string
		make func(g *graph) ocispec.Descriptor
	}{
		{"of a blob", func(g *graph) ocispec.Descriptor { return g.manifest("root", g.blob("x"), longer(g.blob("x"))) }},
		{"of a blob, in two manifests", func(g *graph) ocispec.Descriptor {
			return g.index("root", g.manifest("a", g.blob("x")), g.manifest("b", longer(g.blob("x"))))
		}},
		{"of a manifest", func(g *graph) ocispec.Descriptor { return g.index("root", g.manifest("a"), longer(g.manifest("a"))) }},
		{"of a manifest and a blob", func(g *graph) ocispec.Descriptor {
			return g.index("root", g.manifest("a"), g.manifest("b", longer(g.blob("a"))))
		}},
		{"of a blob and a manifest", func(g *graph) ocispec.Descriptor { return g.index("root", g.blob("a"), longer(g.manifest("a"))) }},
		{"of the root", func(g *graph) ocispec.Descriptor { return g.manifest("root", longer(g.blob("root"))) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := newGraph()
			wantInvalid(t, g.walk(t.Context(), tc.make(g)), "is named with sizes")
		})
	}
}

// branched returns a referrer with all kinds of calls.
func branched(g *graph) ocispec.Descriptor {
	return g.index("root", g.blob("x"), g.index("inner", g.manifest("a", g.blob("a1"), g.blob("a2")), g.manifest("empty")), g.manifest("b", g.blob("b1")))
}

func TestWalkEndsWithItsContext(t *testing.T) {
	t.Parallel()
	g := newGraph()
	root := branched(g)
	if err := g.walk(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	all := len(g.calls)
	cause := errors.New("the pull has ended")
	for at := range all { // 0 is before the walk, and nothing is left to do after the last
		ctx, cancel := context.WithCancelCause(t.Context())
		g.after = func(call int) error {
			if call == at {
				cancel(cause)
			}
			return nil
		}
		if at == 0 {
			cancel(cause)
		}
		if err := g.walk(ctx, root); !errors.Is(err, cause) {
			t.Errorf("ended after call %d: %v, want %v", at, err, cause)
		}
		if len(g.calls) != at {
			t.Errorf("ended after call %d: %q", at, g.calls)
		}
		cancel(nil)
	}
}

// An ended context is told of where there is nothing to visit, too.
func TestWalkOfNothingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("the pull has ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := Walk(ctx, ocispec.Descriptor{}, &Manifest{}, Visitor{}); !errors.Is(err, cause) {
		t.Errorf("%v, want %v", err, cause)
	}
}

func TestWalkEndsWithAnErrorOfTheVisitor(t *testing.T) {
	t.Parallel()
	g := newGraph()
	root := branched(g)
	if err := g.walk(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	all, failed := len(g.calls), errors.New("the store is gone")
	for at := 1; at <= all; at++ {
		g.after = func(call int) error {
			if call == at {
				return failed
			}
			return nil
		}
		if err := g.walk(t.Context(), root); !errors.Is(err, failed) || len(g.calls) != at {
			t.Errorf("call %d fails: %v after %q", at, err, g.calls)
		}
	}
}

// What else a descriptor says comes from the network, and reaches no visitor.
func TestWalkGivesPlainDescriptors(t *testing.T) {
	t.Parallel()
	g := newGraph()
	embellish := func(d ocispec.Descriptor) ocispec.Descriptor {
		d.ArtifactType, d.URLs, d.Data = "text/sbom", []string{"http://169.254.169.254/"}, []byte("x")
		d.Annotations = map[string]string{"containerd.io/gc.root": "now", Annotations[0]: "p"}
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
		return d
	}
	a := embellish(g.manifest("a", embellish(g.blob("x"))))
	root := embellish(g.index("root", a, embellish(g.blob("y"))))
	want := map[digest.Digest]ocispec.Descriptor{}
	for dgst, name := range g.names {
		mediaType := "text/plain"
		if m := g.content[dgst]; m != nil {
			mediaType = m.MediaType
		}
		want[dgst] = ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(name))}
	}
	given := 0
	plain := func(descs ...ocispec.Descriptor) {
		for _, d := range descs {
			if given++; !reflect.DeepEqual(d, want[d.Digest]) {
				t.Errorf("the visitor gets %+v", d)
			}
		}
	}
	err := Walk(t.Context(), root, g.content[root.Digest], Visitor{
		Manifest: func(_ context.Context, desc ocispec.Descriptor, _ []byte) (*Manifest, error) {
			plain(desc)
			return g.content[desc.Digest], nil
		},
		Blob: func(_ context.Context, parent, desc ocispec.Descriptor, _ []byte) error {
			plain(parent, desc)
			return nil
		},
		Leave: func(_ context.Context, desc ocispec.Descriptor, _ *Manifest) error {
			plain(desc)
			return nil
		},
	})
	if err != nil || given != 7 {
		t.Errorf("%d descriptors, %v, want 7", given, err)
	}
}

// Data that a descriptor carries is given to the visitor only if it is the content.
func TestWalkVerifiesInlineData(t *testing.T) {
	t.Parallel()
	g := newGraph()
	with := func(d ocispec.Descriptor, data string) ocispec.Descriptor {
		d.Data = []byte(data)
		return d
	}
	short := with(g.blob("short"), "short")
	short.Size--
	nothing := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(""), Size: 0}
	empty := ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2}
	root := g.index("root",
		with(g.manifest("good manifest"), "good manifest"), with(g.manifest("bad manifest"), "god manifest!"), g.manifest("silent manifest"),
		with(g.blob("good blob"), "good blob"), with(g.blob("bad blob"), "bad blob."), g.blob("silent blob"), short, nothing, empty)
	got := map[digest.Digest]*string{}
	note := func(desc ocispec.Descriptor, data []byte) {
		got[desc.Digest] = nil
		if data != nil {
			text := string(data)
			got[desc.Digest] = &text
		}
	}
	err := Walk(t.Context(), root, g.content[root.Digest], Visitor{
		Manifest: func(_ context.Context, desc ocispec.Descriptor, data []byte) (*Manifest, error) {
			note(desc, data)
			return nil, nil
		},
		Blob: func(_ context.Context, _, desc ocispec.Descriptor, data []byte) error {
			note(desc, data)
			return nil
		},
	})
	if err != nil || len(got) != 9 {
		t.Fatalf("%d pieces, %v", len(got), err)
	}
	for content, given := range map[string]bool{
		"good manifest": true, "bad manifest": false, "silent manifest": false,
		"good blob": true, "bad blob": false, "silent blob": false, "short": false, "": true, "{}": true,
	} {
		switch data := got[digest.FromString(content)]; {
		case given && (data == nil || *data != content):
			t.Errorf("%q: its data is not given", content)
		case !given && data != nil:
			t.Errorf("%q: %q is given", content, *data)
		}
	}
}

// generate makes a referrer of up to three levels, in which each piece is named again and
// again, as a manifest and as a blob, with so many copies of each name.
func generate(g *graph, seed uint64, copies int) ocispec.Descriptor {
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(from []ocispec.Descriptor) (out []ocispec.Descriptor) {
		for range r.IntN(4) {
			d := from[r.IntN(len(from))]
			if r.IntN(5) == 0 {
				d.MediaType = "text/plain"
			}
			out = append(out, slices.Repeat([]ocispec.Descriptor{d}, copies)...)
		}
		return out
	}
	var pieces []ocispec.Descriptor
	for i := range 1 + r.IntN(6) {
		pieces = append(pieces, g.blob(fmt.Sprint("blob ", i)))
	}
	for i := range 1 + r.IntN(4) {
		pieces = append(pieces, g.manifest(fmt.Sprint("manifest ", i), pick(pieces)...))
	}
	flat := len(pieces)
	for i := range 1 + r.IntN(4) {
		pieces = append(pieces, g.index(fmt.Sprint("index ", i), pick(pieces[:flat])...))
	}
	return g.index("root", slices.Concat(pick(pieces), pick(pieces), pick(pieces))...)
}

// uses returns what there is to visit beneath a manifest, each digest once in each of its
// two uses: what a walk must do, found in another way than by walking.
func (g *graph) uses(root ocispec.Descriptor) map[string]bool {
	found := map[string]bool{}
	todo := []*Manifest{g.content[root.Digest]}
	for len(todo) > 0 {
		m := todo[0]
		todo = todo[1:]
		for _, d := range m.Blobs {
			found["blob "+g.names[d.Digest]] = true
		}
		for _, d := range m.Manifests {
			use := "manifest " + g.names[d.Digest]
			if !IsReferrer(d.MediaType) {
				use = "blob " + g.names[d.Digest]
			} else if !found[use] {
				todo = append(todo, g.content[d.Digest])
			}
			found[use] = true
		}
	}
	return found
}

// Over generated referrers: each digest is visited once in each of its uses, each manifest
// is left once and after all that it names, and copies cost no call.
func TestWalkVisitsEachDigestOnce(t *testing.T) {
	t.Parallel()
	most := 0
	for seed := range uint64(500) {
		var first []string
		for _, copies := range []int{1, 5, 20} {
			g := newGraph()
			root := generate(g, seed, copies)
			if err := g.walk(t.Context(), root); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			left, visited, wanted := map[string]bool{}, map[string]bool{}, g.uses(root)
			for i, call := range g.calls {
				if name, ok := strings.CutPrefix(call, "leave "); ok {
					if left[name] || name == "root" != (i == len(g.calls)-1) || name != "root" && !visited["manifest "+name] {
						t.Errorf("seed %d: %q is call %d of %q", seed, call, i, g.calls)
					}
					for _, d := range g.content[digest.FromString(name)].Manifests {
						if child := g.names[d.Digest]; IsReferrer(d.MediaType) && !left[child] {
							t.Errorf("seed %d: %q before its child %q", seed, call, child)
						}
					}
					left[name] = true
					continue
				}
				use, _, _ := strings.Cut(call, " of ")
				if visited[use] {
					t.Errorf("seed %d: %q is visited twice", seed, use)
				}
				visited[use] = true
			}
			if !reflect.DeepEqual(visited, wanted) {
				t.Errorf("seed %d, %d copies: visited %v, want %v", seed, copies, visited, wanted)
			}
			if first == nil {
				first = g.calls
			}
			if !slices.Equal(g.calls, first) {
				t.Errorf("seed %d: %d calls with one copy, %d with %d", seed, len(first), len(g.calls), copies)
			}
			most = max(most, len(g.calls))
		}
	}
	if most < 15 {
		t.Errorf("the largest of the generated referrers takes %d calls, they test nothing", most)
	}
}
