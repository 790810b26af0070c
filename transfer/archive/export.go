package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// exportWithReferrers exports with containerd's archive package, and adds the referrers
// as the archive streams by: index.json is held back, what refers to the manifests and
// indexes that are in the archive is written behind them, and then the index with both.
//
// containerd's own way, archive.WithReferrersProvider, never asks about an image's index,
// follows an index that is a referrer and names its own subject without end, and puts
// descriptors into index.json as they are.
func exportWithReferrers(ctx context.Context, store content.Store, imgs []images.Image, w io.Writer, opts []archive.ExportOpt) error {
	pr, pw := io.Pipe()
	exported := make(chan error, 1)
	go func() {
		err := archive.Export(ctx, store, pw, opts...)
		pw.CloseWithError(err)
		exported <- err
	}()
	e := &exporter{store: store, reader: stored.NewReader(store), out: tar.NewWriter(w), written: map[string]bool{}}
	err := e.copy(tar.NewReader(pr))
	if err == nil {
		err = e.addReferrers(ctx, imgs)
	}
	if err == nil {
		err = e.writeIndex()
	}
	if err == nil {
		err = e.out.Close()
	}
	pr.CloseWithError(err)
	// A failed export ends the pipe with its own error, which says more; and where this end
	// failed, containerd's export returns why.
	if exportErr := <-exported; exportErr != nil {
		return exportErr
	}
	return err
}

// exporter writes one archive.
type exporter struct {
	store   content.Store
	reader  *stored.Reader
	out     *tar.Writer
	written map[string]bool // names of what is in it
	header  *tar.Header     // of index.json
	index   ocispec.Index
	listed  map[tie]bool // in index.json
	// complete are the referrers that were looked at: whether all that each names is stored.
	complete map[digest.Digest]bool
}

// tie is a referrer with its subject. What names no subject itself may refer to several.
type tie struct{ referrer, subject digest.Digest }

// copy writes all of containerd's archive but index.json.
func (e *exporter) copy(in *tar.Reader) error {
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		e.written[h.Name] = true
		if h.Name == ocispec.ImageIndexFile {
			e.header = h
			if err := json.NewDecoder(in).Decode(&e.index); err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			continue
		}
		if err := e.out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(e.out, in); err != nil {
			return err
		}
	}
}

// addReferrers adds what refers to the images' manifests that are in the archive.
func (e *exporter) addReferrers(ctx context.Context, imgs []images.Image) error {
	e.listed, e.complete = map[tie]bool{}, map[digest.Digest]bool{}
	for _, img := range imgs {
		read, err := stored.Read(ctx, e.store, img)
		if err != nil {
			return err
		}
		for _, r := range read.Referrers {
			if !e.written[blobName(r.Subject)] {
				continue // of a platform that is not exported
			}
			if err := e.addReferrer(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// addReferrer adds a referrer and those that refer to it. One that is not complete is left
// out: an archive that lacks what it lists cannot be imported.
func (e *exporter) addReferrer(ctx context.Context, r stored.Referrer) error {
	desc := r.Descriptor()
	if complete, err := e.addComplete(ctx, desc, r.Subject); err != nil || !complete {
		return err
	}
	if key := (tie{r.Digest, r.Subject}); !e.listed[key] {
		e.listed[key] = true
		e.index.Manifests = append(e.index.Manifests, ocispec.Descriptor{
			MediaType: desc.MediaType, ArtifactType: desc.ArtifactType, Digest: desc.Digest, Size: desc.Size,
			Annotations: map[string]string{images.AnnotationManifestSubject: r.Subject.String()},
		})
	}
	for _, below := range r.Referrers {
		if err := e.addReferrer(ctx, below); err != nil {
			return err
		}
	}
	return nil
}

// addComplete writes a referrer, once, with all that it names, and reports whether that
// is stored.
func (e *exporter) addComplete(ctx context.Context, desc ocispec.Descriptor, subject digest.Digest) (bool, error) {
	if complete, known := e.complete[desc.Digest]; known {
		return complete, nil
	}
	if err := e.reader.Complete(ctx, desc); err != nil {
		if ctx.Err() != nil {
			return false, err
		}
		log.G(ctx).WithError(err).WithField("subject", subject).WithField("digest", desc.Digest).Warn("referrers: not exported: it is not stored whole; pull the image again")
		e.complete[desc.Digest] = false
		return false, nil
	}
	e.complete[desc.Digest] = true
	return true, e.addContent(ctx, desc)
}

// addContent writes a referrer's manifest and all that it names.
func (e *exporter) addContent(ctx context.Context, referrer ocispec.Descriptor) error {
	m, err := stored.Manifest(ctx, e.store, referrer)
	if err != nil {
		return err
	}
	if err := e.addBlob(ctx, referrer); err != nil {
		return err
	}
	return artifact.Walk(ctx, referrer, m, artifact.Visitor{
		Manifest: func(ctx context.Context, desc ocispec.Descriptor, _ []byte) (*artifact.Manifest, error) {
			if err := e.addBlob(ctx, desc); err != nil {
				return nil, err
			}
			return e.reader.Child(ctx, desc)
		},
		Blob: func(ctx context.Context, _, desc ocispec.Descriptor, _ []byte) error { return e.addBlob(ctx, desc) },
	})
}

// blobName is the name of content in an OCI layout (OCI image-spec, "Image Layout").
func blobName(dgst digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, dgst.Algorithm().String(), dgst.Encoded())
}

func (e *exporter) addBlob(ctx context.Context, desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return err
	}
	name := blobName(desc.Digest)
	if e.written[name] {
		return nil
	}
	e.written[name] = true
	ra, err := e.store.ReaderAt(ctx, artifact.Plain(desc))
	if err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, err)
	}
	defer ra.Close()
	if err := e.out.WriteHeader(&tar.Header{Name: name, Mode: 0o444, Size: ra.Size(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(e.out, content.NewReader(ra))
	return err
}

// writeIndex writes index.json.
func (e *exporter) writeIndex() error {
	if e.header == nil {
		return nil // a failed export, which says why
	}
	data, err := json.Marshal(e.index)
	if err != nil {
		return err
	}
	e.header.Size = int64(len(data))
	if err := e.out.WriteHeader(e.header); err != nil {
		return err
	}
	_, err = io.Copy(e.out, bytes.NewReader(data))
	return err
}
