package transfer

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/archive"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// importArchive lets the wrapped service import an archive. The referrers that it
// carries become no images: they are tied to their subjects before an image record
// is written.
func (t *Transferrer) importArchive(ctx context.Context, src transfer.ImageImporter, dst transfer.ImageStorer, opts ...transfer.Opt) error {
	var config transfer.Config
	for _, opt := range opts {
		opt(&config)
	}
	progress := locked(config.Progress)
	ctx, release, err := t.withLease(ctx)
	if err != nil {
		return err
	}
	defer release()
	source := archive.NewSource(src)
	d := &importStore{destination: destination{dst}, source: source, store: t.config.Store, progress: progress}
	return t.config.Local.Transfer(ctx, source, d, transfer.WithProgress(progress))
}

// importStore is an import's destination, watched for the manifests that pass
// through it.
type importStore struct {
	destination
	attested attestations
	source   *archive.Source
	store    content.Store
	progress transfer.ProgressFunc

	mu       sync.Mutex
	index    digest.Digest        // of the archive, the first that passes
	walked   []digest.Digest      // manifests and indexes of images that are imported
	carried  []ocispec.Descriptor // the archive's referrers, each annotated with its subject
	apart    []ocispec.Descriptor // entries of the archive's index that are no images
	alone    bool                 // there is nothing else in it
	restored bool
}

// ImageFilter implements transfer.ImageFilterer.
func (d *importStore) ImageFilter(h images.HandlerFunc, store content.Store) images.HandlerFunc {
	h = d.destination.ImageFilter(d.attested.note(d.setApart(h)), store)
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, desc)
		if err == nil && artifact.IsReferrer(desc.MediaType) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.walked = append(d.walked, desc.Digest)
		}
		return children, err
	}
}

// setApart takes what is no image out of the archive's index: the referrers that it names
// beside the images, whatever name they bear, and the listings under fallback tags.
func (d *importStore) setApart(h images.HandlerFunc) images.HandlerFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, desc)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.index == "" {
			d.index = desc.Digest
			if err := archive.CheckIndex(ctx, d.store, desc); err != nil {
				return nil, err
			}
		}
		if err != nil || desc.Digest != d.index {
			return children, err
		}
		return d.sort(ctx, children), nil
	}
}

// sort returns the entries of the archive's index that may be images.
func (d *importStore) sort(ctx context.Context, entries []ocispec.Descriptor) []ocispec.Descriptor {
	found, subjects := d.source.Referrers(ctx, d.store)
	var rest []ocispec.Descriptor
	for _, entry := range entries {
		switch {
		case archive.Subject(entry) != "":
			d.carried = append(d.carried, entry)
			d.apart = append(d.apart, entry)
		case archive.IsListing(entry), archive.Name(entry) == "" && subjects[entry.Digest] != "":
			d.apart = append(d.apart, entry)
		default:
			rest = append(rest, entry)
		}
	}
	for _, desc := range found {
		desc.Annotations = map[string]string{images.AnnotationManifestSubject: subjects[desc.Digest].String()}
		d.carried = append(d.carried, desc)
	}
	if d.alone = len(rest) == 0 && len(d.carried) > 0; d.alone {
		return entries // containerd imports no archive of nothing
	}
	return rest
}

// Store implements transfer.ImageStorer. All content is there when it is first
// called.
func (d *importStore) Store(ctx context.Context, desc ocispec.Descriptor, store images.Store) ([]images.Image, error) {
	if err := d.restore(ctx); err != nil {
		return nil, err
	}
	if d.isApart(desc) {
		return nil, nil
	}
	imgs, err := d.ImageStorer.Store(ctx, desc, store)
	if err == nil && len(imgs) > 0 && desc.Digest == d.index {
		err = archive.Keep(ctx, d.store, desc.Digest, d.apart)
	}
	return imgs, err
}

// isApart reports whether an entry of the archive's index is no image.
func (d *importStore) isApart(desc ocispec.Descriptor) bool {
	return slices.ContainsFunc(d.apart, func(entry ocispec.Descriptor) bool {
		return entry.Digest == desc.Digest && archive.Name(entry) == archive.Name(desc) && archive.Subject(entry) == archive.Subject(desc)
	})
}

// restore ties, once, what the archive carries to the images that come in.
func (d *importStore) restore(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.restored {
		return nil
	}
	d.restored = true
	carried := d.carried
	for _, subject := range d.walked {
		for _, a := range d.attested.of(subject) {
			a.Annotations = map[string]string{images.AnnotationManifestSubject: subject.String()}
			carried = append(carried, a)
		}
	}
	subjects := d.walked
	if d.alone {
		subjects = d.storedSubjects(ctx)
	}
	n, err := archive.Restore(ctx, d.store, subjects, carried)
	if err == nil && d.alone && n == 0 {
		return fmt.Errorf("the archive holds only referrers, and none of an image that is here; import or pull that first: %w", errdefs.ErrFailedPrecondition)
	}
	if n > 0 {
		log.G(ctx).WithField("index", d.index).WithField("restored", n).Info("referrers: imported")
		if d.progress != nil {
			d.progress(transfer.Progress{Event: fmt.Sprintf("Tied %d referrers", n)})
		}
	}
	return err
}

// storedSubjects are those of an archive's referrers that came to images which are
// here already: what was signed later crosses an air gap without the image.
func (d *importStore) storedSubjects(ctx context.Context) []digest.Digest {
	var out []digest.Digest
	for _, desc := range d.carried {
		subject, err := digest.Parse(archive.Subject(desc).String())
		if err != nil {
			continue
		}
		if _, err := d.store.Info(ctx, subject); err == nil {
			out = append(out, subject)
		}
	}
	return out
}
