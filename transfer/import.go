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
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
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
	d := &importStore{destination: destination{dst}, store: t.config.Store, labeler: t.labeler, progress: progress}
	d.records = &judgedRecords{t: t, platforms: d.Platforms()}
	err = t.config.Local.Transfer(ctx, src, d, transfer.WithProgress(progress))
	if d.records.refused != nil {
		return d.records.refused // as it is, whatever was put around it
	}
	return err
}

// importStore is an import's destination, watched for the manifests that pass
// through it.
type importStore struct {
	destination
	attested attestations
	store    content.Store
	labeler  *stored.Labeler
	progress transfer.ProgressFunc
	records  *judgedRecords

	mu       sync.Mutex
	index    digest.Digest        // of the archive, the first that passes
	walked   []digest.Digest      // manifests and indexes of images that are imported
	carried  []ocispec.Descriptor // the archive's referrers, each annotated with its subject
	apart    []ocispec.Descriptor // entries of the archive's index that are no images
	isApart  map[entry]bool       // the same
	alone    bool                 // there is nothing else in it
	restored bool
	tied     int
}

// entry tells the entries of an archive's index apart.
type entry struct{ mediaType, digest, name, subject string }

func entryOf(desc ocispec.Descriptor) entry {
	return entry{desc.MediaType, desc.Digest.String(), archive.Name(desc), archive.Subject(desc).String()}
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
		d.mu.Lock()
		index := d.index
		if index == "" {
			d.index = desc.Digest
		}
		d.mu.Unlock()
		switch index {
		case "":
			return d.readIndex(ctx, h, desc)
		case desc.Digest:
			return nil, nil // in the place of its entries, see readIndex
		}
		return h(ctx, desc)
	}
}

// readIndex returns the entries of the archive's index that may be images. Where none may,
// it returns the index itself: containerd imports no archive of nothing, and would unpack a
// referrer that looks like an image.
func (d *importStore) readIndex(ctx context.Context, h images.HandlerFunc, index ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if err := archive.CheckIndex(ctx, d.store, index); err != nil {
		return nil, err
	}
	entries, err := h(ctx, index)
	if err != nil {
		return nil, err
	}
	contents, err := archive.Scan(ctx, d.store, entries)
	if err != nil {
		return nil, err
	}
	rest, apart, carried := contents.Sort(entries)
	d.apart, d.carried, d.isApart = apart, carried, map[entry]bool{}
	for _, desc := range apart {
		d.isApart[entryOf(desc)] = true
	}
	if d.alone = len(rest) == 0 && len(carried) > 0; d.alone {
		return []ocispec.Descriptor{{MediaType: "application/octet-stream", Digest: index.Digest, Size: index.Size}}, nil
	}
	return rest, nil
}

// Store implements transfer.ImageStorer. All content is there when it is first
// called.
func (d *importStore) Store(ctx context.Context, desc ocispec.Descriptor, store images.Store) ([]images.Image, error) {
	if err := d.restore(ctx); err != nil {
		return nil, err
	}
	if d.isApart[entryOf(desc)] {
		return nil, nil
	}
	d.records.Store = store
	imgs, err := d.ImageStorer.Store(ctx, desc, d.records)
	switch {
	case desc.Digest != d.index:
	case err == nil && len(imgs) > 0:
		err = archive.KeepEntries(ctx, d.store, d.labeler, desc.Digest, d.apart)
	case errdefs.IsNotFound(err) && d.alone && d.tied == 0:
		err = fmt.Errorf("the archive holds only referrers, and none of an image that is here; import or pull that first: %w", errdefs.ErrFailedPrecondition)
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
	var err error
	d.tied, err = archive.Restore(ctx, d.store, d.labeler, subjects, carried)
	if d.tied > 0 {
		log.G(ctx).WithField("index", d.index).WithField("restored", d.tied).Info("referrers: imported")
		if d.progress != nil {
			d.progress(transfer.Progress{Event: fmt.Sprintf("Tied %d referrers", d.tied)})
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
