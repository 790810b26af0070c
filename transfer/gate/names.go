package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// record is a name of an image, and what it leads to.
type record struct {
	name       string
	repository string // without tag and digest; the whole name where that is no reference
	normalized string // the repository by its one name
	target     ocispec.Descriptor
}

// maxViewAge is how long the records that were read are believed without a word of a change.
const maxViewAge = 10 * time.Second

// view is what the records of a namespace lead to, as they were read.
type view struct {
	namespace string
	changes   uint64 // of which it knows
	at        time.Time
	records   []record
	holders   map[digest.Digest][]int // records by the indexes, manifests and configs that their images hold
}

// ImageEvents selects the events that Watch needs.
const ImageEvents = `topic~="^/images/"`

// Watch has records of images that were read count until an event tells of a change, as CRI
// does; without it they are read for each container. It is called once, before the first.
func (g *Gate) Watch(changed <-chan *events.Envelope, ended <-chan error) {
	g.watched.Store(true)
	go func() {
		defer g.watched.Store(false)
		for {
			select {
			case <-changed:
				g.changes.Add(1)
			case err := <-ended: // with the daemon, or where events are lost
				log.L.WithError(err).Debug("referrers: the gate gets no events of images, and lists them for each container")
				return
			}
		}
	}()
}

// look returns what the records of the namespace lead to now. Where somebody tells of each
// change, records that were read count until then: listing a thousand takes longer than all
// else.
func (g *Gate) look(ctx context.Context) (*view, error) {
	namespace, _ := namespaces.Namespace(ctx)
	changes := g.changes.Load()
	if v := g.view.Load(); g.watched.Load() && v != nil && v.namespace == namespace && v.changes == changes && time.Since(v.at) < maxViewAge {
		return v, nil
	}
	v := &view{namespace: namespace, changes: changes, at: time.Now(), holders: map[digest.Digest][]int{}}
	all, err := g.config.Images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the images: %w", err)
	}
	updated := map[digest.Digest]time.Time{}
	for _, i := range all {
		if t := updated[i.Target.Digest]; i.UpdatedAt.After(t) {
			updated[i.Target.Digest] = i.UpdatedAt
		}
	}
	for n, i := range all {
		v.records = append(v.records, recordOf(i.Name, i.Target))
		v.holders[i.Target.Digest] = append(v.holders[i.Target.Digest], n)
		for _, dgst := range g.contents.of(ctx, g.config.Store, i.Target, updated[i.Target.Digest]) {
			if dgst != i.Target.Digest {
				v.holders[dgst] = append(v.holders[dgst], n)
			}
		}
	}
	if ctx.Err() != nil { // it may not have been read to its end
		return nil, errLate
	}
	g.view.Store(v)
	return v, nil
}

// names returns the records of the namespace that lead to the image, the runtime's own name
// first and then sorted. A name that the runtime gives and that has no record, or one of
// another image by now, is one of them. So is the digest where there is no other: only a rule
// for all repositories governs it.
func (g *Gate) names(ctx context.Context, image Image) ([]record, error) {
	for _, d := range []digest.Digest{image.Digest, image.Config} {
		if err := d.Validate(); d != "" && err != nil {
			return nil, fmt.Errorf("digest %.80q: %w", d, err)
		}
	}
	v, err := g.look(ctx)
	if err != nil {
		return nil, err
	}
	var out []record
	leading := slices.Concat(v.holders[image.Digest], v.holders[image.Config])
	slices.Sort(leading)
	for _, n := range slices.Compact(leading) {
		out = append(out, v.records[n])
	}
	own := slices.ContainsFunc(out, func(r record) bool { return r.name == image.Name })
	if !own && image.Digest != "" {
		out = append(out, recordOf(image.String(), g.describe(ctx, image.Digest)))
	}
	// CRI names each image by its config's digest as well, which is in no repository.
	if slices.ContainsFunc(out, func(r record) bool { return !r.isDigest() }) {
		out = slices.DeleteFunc(out, record.isDigest)
	}
	if len(out) == 0 {
		return nil, errors.New("no image record leads to it, and the runtime names no digest of it")
	}
	slices.SortFunc(out, func(a, b record) int {
		if own := a.name == image.Name; own != (b.name == image.Name) {
			if own {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.name, b.name)
	})
	return out, nil
}

func recordOf(name string, target ocispec.Descriptor) record {
	r := record{name: name, repository: name, target: target}
	if spec, err := reference.Parse(name); err == nil {
		r.repository = spec.Locator
	}
	r.normalized = policy.NormalizeRepository(r.repository)
	return r
}

// isDigest reports whether the name is no more than a digest.
func (r record) isDigest() bool { return digest.Digest(r.name).Validate() == nil }

// beside reports whether two records are of one repository.
func (r record) beside(other record) bool { return r.normalized == other.normalized }

// describe returns the descriptor of an index or manifest. Where it cannot be read it has no more
// than the digest, of which a rule that verifies finds nothing.
func (g *Gate) describe(ctx context.Context, dgst digest.Digest) ocispec.Descriptor {
	desc := ocispec.Descriptor{Digest: dgst}
	info, err := g.config.Store.Info(ctx, dgst)
	if err != nil {
		return desc
	}
	desc.Size = info.Size
	data, err := stored.ReadBlob(ctx, g.config.Store, desc, artifact.MaxManifestSize)
	if err != nil {
		return desc
	}
	if m, err := artifact.Parse(data, ""); err == nil {
		desc.MediaType = m.MediaType
	}
	return desc
}

// maxContents is of how many images it is remembered what they hold.
const maxContents = 1 << 16

// contents remembers which manifests and configs the stored images hold. That changes where
// another platform of one is pulled, which updates a record of it.
type contents struct {
	mu    sync.Mutex
	known map[heldBy]holding
}

type heldBy struct {
	namespace string
	root      digest.Digest
}

type holding struct {
	digests []digest.Digest
	updated time.Time
}

// of returns the digests of all indexes, manifests and configs of an image that are stored,
// none where it cannot be read: nothing runs of it then.
func (c *contents) of(ctx context.Context, store stored.Store, root ocispec.Descriptor, updated time.Time) []digest.Digest {
	namespace, _ := namespaces.Namespace(ctx)
	by := heldBy{namespace, root.Digest}
	c.mu.Lock()
	h, ok := c.known[by]
	c.mu.Unlock()
	if ok && h.updated.Equal(updated) {
		return h.digests
	}
	found, err := digestsOf(ctx, store, root)
	if err != nil || len(found) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxContents {
		c.known = map[heldBy]holding{}
	}
	c.known[by] = holding{found, updated}
	return found
}

func digestsOf(ctx context.Context, store stored.Store, root ocispec.Descriptor) ([]digest.Digest, error) {
	var out []digest.Digest
	manifests := 0
	err := stored.WalkImage(ctx, root, func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if artifact.IsIndex(desc.MediaType) {
			below, err := stored.ImageManifests(ctx, store, desc)
			if err != nil && desc.Digest != root.Digest {
				return nil, nil // of a platform that is not stored
			}
			out = append(out, desc.Digest)
			return slices.DeleteFunc(below, func(c ocispec.Descriptor) bool { return artifact.IsBuildKitEntry(c) }), err
		}
		if config := stored.ConfigOf(ctx, store, desc); config != "" {
			out = append(out, desc.Digest, config)
			manifests++
		}
		return nil, nil
	})
	if manifests == 0 { // more may come
		return nil, err
	}
	return out, err
}
