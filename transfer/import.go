package transfer

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/archive"
)

// importArchive lets the wrapped service import an archive. The referrers that it
// carries become no images: they are tied to their subjects before an image record
// is written.
func (t *Transferrer) importArchive(ctx context.Context, src transfer.ImageImporter, dst transfer.ImageStorer, opts ...transfer.Opt) error {
	ctx, release, err := t.withLease(ctx)
	if err != nil {
		return err
	}
	defer release()
	return t.Local.Transfer(ctx, src, &importStore{destination: destination{dst}, store: t.Store}, opts...)
}

// importStore is an import's destination, watched for the manifests that pass
// through it.
type importStore struct {
	destination
	attested attestations
	store    content.Store

	mu       sync.Mutex
	index    digest.Digest        // of the archive, the first that passes
	walked   []digest.Digest      // manifests and indexes of images that are imported
	carried  []ocispec.Descriptor // what the archive's index says are referrers
	alone    bool                 // there is nothing else in it
	restored bool
}

// ImageFilter implements transfer.ImageFilterer.
func (d *importStore) ImageFilter(h images.HandlerFunc, store content.Store) images.HandlerFunc {
	h = d.destination.ImageFilter(d.attested.note(d.setApart(h)), store)
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, desc)
		if err == nil && (images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType)) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.walked = append(d.walked, desc.Digest)
		}
		return children, err
	}
}

// setApart takes the referrers out of the archive's index, which names them beside
// the images (images.AnnotationManifestSubject). One that has a name of its own is
// an image as well, as it is to containerd's client.
func (d *importStore) setApart(h images.HandlerFunc) images.HandlerFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, desc)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.index == "" {
			d.index = desc.Digest
		}
		if err != nil || desc.Digest != d.index {
			return children, err
		}
		var named []ocispec.Descriptor
		for _, child := range children {
			if isCarried(child) {
				d.carried = append(d.carried, child)
			}
			if !isCarried(child) || isNamed(child) {
				named = append(named, child)
			}
		}
		if d.alone = len(named) == 0 && len(d.carried) > 0; d.alone {
			return children, nil // containerd imports no archive of nothing
		}
		return named, nil
	}
}

func isCarried(desc ocispec.Descriptor) bool {
	return desc.Annotations[images.AnnotationManifestSubject] != ""
}

func isNamed(desc ocispec.Descriptor) bool {
	return desc.Annotations[images.AnnotationImageName] != "" || desc.Annotations[ocispec.AnnotationRefName] != ""
}

// Store implements transfer.ImageStorer. All content is there when it is first
// called.
func (d *importStore) Store(ctx context.Context, desc ocispec.Descriptor, store images.Store) ([]images.Image, error) {
	if err := d.restore(ctx); err != nil {
		return nil, err
	}
	if isCarried(desc) && !isNamed(desc) {
		return nil, nil
	}
	imgs, err := d.ImageStorer.Store(ctx, desc, store)
	if err == nil && len(imgs) > 0 && desc.Digest == d.index {
		err = archive.Keep(ctx, d.store, desc.Digest, d.carried)
	}
	return imgs, err
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
	}
	return err
}

// storedSubjects are those of an archive's referrers that came to images which are
// here already: what was signed later crosses an air gap without the image.
func (d *importStore) storedSubjects(ctx context.Context) []digest.Digest {
	var out []digest.Digest
	for _, desc := range d.carried {
		subject, err := digest.Parse(desc.Annotations[images.AnnotationManifestSubject])
		if err != nil {
			continue
		}
		if _, err := d.store.Info(ctx, subject); err == nil {
			out = append(out, subject)
		}
	}
	return out
}
