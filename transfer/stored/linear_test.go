package stored

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// counted is a store that counts what is read of it.
type counted struct {
	Store
	calls int   // of Info and ReaderAt
	bytes int64 // that ReaderAt gave
	// before is called with the number of each call, and may fail it.
	before func(call int) error
}

func (c *counted) call() error {
	c.calls++
	if c.before == nil {
		return nil
	}
	return c.before(c.calls)
}

func (c *counted) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	if err := c.call(); err != nil {
		return content.Info{}, err
	}
	return c.Store.Info(ctx, dgst)
}

func (c *counted) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if err := c.call(); err != nil {
		return nil, err
	}
	ra, err := c.Store.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	return countedReader{ra, c}, nil
}

type countedReader struct {
	content.ReaderAt
	c *counted
}

func (r countedReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	r.c.bytes += int64(n)
	return n, err
}

// operations are all that read referrers back from a store, by name.
var operations = map[string]func(context.Context, Store, ocispec.Descriptor) error{
	"Read": func(ctx context.Context, store Store, root ocispec.Descriptor) error {
		_, err := Read(ctx, store, images.Image{Name: "app", Target: root})
		return err
	},
	"Read and AddSizes": func(ctx context.Context, store Store, root ocispec.Descriptor) error {
		image, err := Read(ctx, store, images.Image{Name: "app", Target: root})
		if err != nil {
			return err
		}
		return AddSizes(ctx, store, image.Referrers)
	},
	"Referrers": func(ctx context.Context, store Store, root ocispec.Descriptor) error {
		_, err := Referrers(ctx, store, root)
		return err
	},
	"Complete": Complete,
}

// distinct makes so many manifests of an artifact, each with a layer of its own.
func (s *shelf) distinct(kind string, n int) (out []ocispec.Descriptor) {
	for i := range n {
		out = append(out, s.artifact(kind, s.put("text/plain", fmt.Appendf(nil, "%s %d", kind, i))))
	}
	return out
}

// platforms makes so many manifests of an image, each tied to the referrers.
func (s *shelf) platforms(n int, referrers ...ocispec.Descriptor) (out []ocispec.Descriptor) {
	for i := range n {
		out = append(out, s.put(ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"layers":[],"x":%d}`, i), referrers...))
	}
	return out
}

// shapes are stored images with their referrers, in which n of something are to be read:
// the root is an image, and the referrers of it what the other operations read.
var shapes = map[string]func(s *shelf, n int) ocispec.Descriptor{
	"referrers": func(s *shelf, n int) ocispec.Descriptor {
		return s.platforms(1, s.distinct("text/a", n)...)[0]
	},
	"index referrers that name copies of the same manifests": func(s *shelf, n int) ocispec.Descriptor {
		children := s.distinct("text/child", 3)
		var indexes []ocispec.Descriptor
		for i := range n {
			indexes = append(indexes, s.put(ocispec.MediaTypeImageIndex, ocispec.Index{
				ArtifactType: fmt.Sprint("text/", i), MediaType: ocispec.MediaTypeImageIndex, Manifests: slices.Repeat(children, n),
			}))
		}
		return s.index(s.platforms(1, indexes...)[0])
	},
	"index referrers that name as many of the same manifests": func(s *shelf, n int) ocispec.Descriptor {
		children := s.distinct("text/child", n)
		var indexes []ocispec.Descriptor
		for i := range n {
			indexes = append(indexes, s.put(ocispec.MediaTypeImageIndex, ocispec.Index{
				ArtifactType: fmt.Sprint("text/", i), MediaType: ocispec.MediaTypeImageIndex, Manifests: children,
			}))
		}
		return s.platforms(1, indexes...)[0]
	},
	"index referrers that list their own subject": func(s *shelf, n int) ocispec.Descriptor {
		subject := s.platforms(1)[0]
		var indexes []ocispec.Descriptor
		for i := range n {
			indexes = append(indexes, s.put(ocispec.MediaTypeImageIndex, ocispec.Index{
				ArtifactType: fmt.Sprint("text/", i), MediaType: ocispec.MediaTypeImageIndex, Subject: &subject, Manifests: []ocispec.Descriptor{subject, subject},
			}, subject))
		}
		s.tie(subject, indexes...)
		return subject
	},
	"an index of copies of its manifests": func(s *shelf, n int) ocispec.Descriptor {
		a := s.platforms(1, s.distinct("text/a", 1)...)[0]
		nested := s.index(slices.Repeat([]ocispec.Descriptor{a}, n)...)
		root := s.index(slices.Repeat([]ocispec.Descriptor{nested, a}, n)...)
		s.tie(root, s.distinct("text/b", n)...)
		return root
	},
	"subjects of one referrer": func(s *shelf, n int) ocispec.Descriptor {
		signature := s.distinct("text/signature", 1)[0]
		sbom := s.distinct("text/sbom", 1)[0]
		s.tie(sbom, signature)
		root := s.index(s.platforms(n, sbom, signature)...)
		s.tie(root, s.distinct("text/b", n)...)
		return root
	},
	"pairs of referrers that are each other's": func(s *shelf, n int) ocispec.Descriptor {
		all := s.distinct("text/a", 2*n)
		for i := 0; i < len(all); i += 2 {
			s.tie(all[i], all[i+1])
			s.tie(all[i+1], all[i])
		}
		return s.platforms(1, all...)[0]
	},
	"referrers in one ring": func(s *shelf, n int) ocispec.Descriptor {
		all := s.distinct("text/a", n)
		for i := range all {
			s.tie(all[i], all[(i+1)%n])
		}
		return s.platforms(1, all...)[0]
	},
	"referrers that the image is tied to": func(s *shelf, n int) ocispec.Descriptor {
		all := s.distinct("text/a", n)
		a := s.platforms(1, all...)[0]
		root := s.index(a)
		s.tie(root, all...)
		for _, r := range all {
			s.tie(r, root, a, r)
		}
		return root
	},
	"levels of two referrers, each of both above": func(s *shelf, n int) ocispec.Descriptor {
		above := s.platforms(1)
		root := above[0]
		for i := range n {
			level := s.distinct(fmt.Sprint("text/", i), 2)
			for _, subject := range above {
				s.tie(subject, level...)
			}
			above = level
		}
		return root
	},
	"referrers of all others": func(s *shelf, n int) ocispec.Descriptor {
		all := s.distinct("text/a", n)
		for _, r := range all {
			s.tie(r, all...)
		}
		return s.platforms(1, all...)[0]
	},
}

// sizes of each shape; its fourfold is read too.
var sizes = map[string]int{
	"levels of two referrers, each of both above": 3, // 4,096 lines of a tree at 12 levels
}

// bytes sums up what is stored.
func (s *shelf) bytes() (sum int64) {
	s.t.Helper()
	if err := s.store.Walk(s.ctx, func(info content.Info) error {
		sum += info.Size
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return sum
}

// What is read of the store grows with what is stored and no faster, whatever the labels
// tie together: four times as much costs at most four times as many calls, and an
// operation reads no byte more than three times: in the image, as a referrer, as its content.
func TestReadsGrowLinearly(t *testing.T) {
	t.Parallel()
	for shape, put := range shapes {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			n := sizes[shape]
			if n == 0 {
				n = 8
			}
			calls := map[string]int{}
			for _, n := range []int{n, 4 * n} {
				s := newShelf(t)
				s.put("", ocispec.DescriptorEmptyJSON.Data)
				root := put(s, n)
				all := s.bytes()
				for name, operation := range operations {
					most := 0 // calls of one operation
					for _, target := range s.targets(name, root) {
						store := &counted{Store: s.store}
						if err := operation(s.ctx, store, target); err != nil && !errdefs.IsResourceExhausted(err) {
							t.Fatalf("%s of %d: %v", name, n, err)
						}
						if store.bytes > 3*all {
							t.Errorf("%s of %d: %d bytes are read of %d", name, n, store.bytes, all)
						}
						most = max(most, store.calls)
					}
					if before := calls[name]; before > 0 && 2*most > 9*before {
						t.Errorf("%s: %d calls for %d, %d for %d", name, before, n/4, most, n)
					}
					calls[name] = most
				}
			}
		})
	}
}

// targets are what an operation reads: the image, each of its subjects, or each of their
// referrers.
func (s *shelf) targets(operation string, root ocispec.Descriptor) []ocispec.Descriptor {
	s.t.Helper()
	if operation == "Read" || operation == "Read and AddSizes" {
		return []ocispec.Descriptor{root}
	}
	subjects, err := subjectsOf(s.ctx, s.store, root)
	if err != nil {
		s.t.Fatal(err)
	}
	if operation == "Referrers" {
		return subjects
	}
	found := map[digest.Digest]ocispec.Descriptor{}
	for _, subject := range subjects {
		referrers, err := Referrers(s.ctx, s.store, subject)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range referrers {
			found[r.Digest] = r
		}
	}
	return slices.Collect(maps.Values(found))
}

// Whichever call of the store is under way when the context ends, each operation returns
// the cause, without reading on: from a store that fails then, as a daemon's does over
// gRPC, and from one that does not look at the context, as one in-process.
func TestReadsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.put("", ocispec.DescriptorEmptyJSON.Data)
	children := s.distinct("text/child", 2)
	index := s.put(ocispec.MediaTypeImageIndex, ocispec.Index{ArtifactType: "text/index", MediaType: ocispec.MediaTypeImageIndex, Manifests: children})
	nested := s.distinct("text/nested", 1)
	s.tie(index, nested...)
	root := s.index(s.platforms(2, index)...)
	s.tie(root, index, s.distinct("text/a", 1)[0])
	targets := map[string]ocispec.Descriptor{"Complete": index}
	cause := errors.New("the client has left")
	for name, operation := range operations {
		target, ok := targets[name]
		if !ok {
			target = root
		}
		store := &counted{Store: s.store}
		if err := operation(s.ctx, store, target); err != nil {
			t.Fatal(err)
		}
		for at := range store.calls + 1 { // 0 is before the first
			for _, fails := range []bool{true, false} {
				ctx, cancel := context.WithCancelCause(s.ctx)
				if at == 0 {
					cancel(cause)
				}
				store := &counted{Store: s.store, before: func(call int) error {
					if call == at {
						cancel(cause)
					}
					if fails {
						return ctx.Err()
					}
					return nil
				}}
				if err := operation(ctx, store, target); !errors.Is(err, cause) {
					t.Errorf("%s, ended in call %d of a store that fails: %t: %v, want %v", name, at, fails, err, cause)
				}
				if n := store.calls - at; n > 1 {
					t.Errorf("%s, ended in call %d of a store that fails: %t: %d more calls", name, at, fails, n)
				}
				cancel(nil)
			}
		}
	}
}
