package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// exportWithReferrers exports with containerd's archive package, which asks for
// the referrers of platform manifests but never of the index. Those it adds on
// the way: to index.json as it passes, and their content at the end.
func exportWithReferrers(ctx context.Context, store content.Store, imgs []images.Image, w io.Writer, opts []archive.ExportOpt) error {
	opts = append(opts, archive.WithReferrersProvider(stored.Provider(store)))
	extra, err := indexReferrers(ctx, store, imgs)
	if err != nil {
		return err
	}
	if len(extra) == 0 {
		return archive.Export(ctx, store, w, opts...)
	}
	pr, pw := io.Pipe()
	exported := make(chan error, 1)
	go func() {
		err := archive.Export(ctx, store, pw, opts...)
		pw.CloseWithError(err)
		exported <- err
	}()
	err = addReferrers(ctx, store, tar.NewReader(pr), w, extra)
	pr.CloseWithError(err)
	// A failed export ends the pipe with its own error, which says more.
	return errors.Join(<-exported, err)
}

// indexReferrers returns the referrers of the images' indexes, and theirs, each
// annotated with its subject.
func indexReferrers(ctx context.Context, store content.Store, imgs []images.Image) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	var add func(rs []stored.Referrer)
	add = func(rs []stored.Referrer) {
		for _, r := range rs {
			if !seen[r.Digest] && stored.Whole(ctx, store, r.Descriptor()) {
				seen[r.Digest] = true
				out = append(out, ocispec.Descriptor{
					MediaType: r.MediaType, ArtifactType: r.ArtifactType, Digest: r.Digest, Size: r.Size,
					Annotations: map[string]string{images.AnnotationManifestSubject: r.Subject.String()},
				})
				add(r.Referrers)
			}
		}
	}
	for _, img := range imgs {
		if !images.IsIndexType(img.Target.MediaType) {
			continue
		}
		read, err := stored.Read(ctx, store, img)
		if err != nil {
			return nil, err
		}
		for _, r := range read.Referrers {
			if r.Subject == img.Target.Digest {
				add([]stored.Referrer{r})
			}
		}
	}
	return out, nil
}

// addReferrers copies the archive and adds what is not in it yet.
func addReferrers(ctx context.Context, store content.Provider, in *tar.Reader, w io.Writer, extra []ocispec.Descriptor) error {
	out := tar.NewWriter(w)
	written := map[string]bool{}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		written[h.Name] = true
		if h.Name == ocispec.ImageIndexFile {
			err = copyIndex(out, h, in, extra)
		} else if err = out.WriteHeader(h); err == nil {
			_, err = io.Copy(out, in)
		}
		if err != nil {
			return err
		}
	}
	for _, desc := range extra {
		if err := addContent(ctx, store, out, desc, written); err != nil {
			return err
		}
	}
	return out.Close()
}

// copyIndex adds the descriptors that index.json does not have.
func copyIndex(out *tar.Writer, h *tar.Header, in io.Reader, extra []ocispec.Descriptor) error {
	var index ocispec.Index
	if err := json.NewDecoder(in).Decode(&index); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	have := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		have[d.Digest] = true
	}
	for _, d := range extra {
		if !have[d.Digest] {
			index.Manifests = append(index.Manifests, d)
		}
	}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	h.Size = int64(len(data))
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err = out.Write(data)
	return err
}

// addContent writes a referrer's manifest and all that it names.
func addContent(ctx context.Context, store content.Provider, out *tar.Writer, desc ocispec.Descriptor, written map[string]bool) error {
	if err := addBlob(ctx, store, out, desc, written); err != nil {
		return err
	}
	if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		return nil
	}
	data, err := stored.ReadManifest(ctx, store, desc)
	if err != nil {
		return err
	}
	m, err := artifact.Parse(data, desc.MediaType, artifact.MaxDescriptors)
	if err != nil {
		return err
	}
	for _, child := range append(m.Blobs, m.Manifests...) {
		if err := addContent(ctx, store, out, child, written); err != nil {
			return err
		}
	}
	return nil
}

func addBlob(ctx context.Context, store content.Provider, out *tar.Writer, desc ocispec.Descriptor, written map[string]bool) error {
	if err := desc.Digest.Validate(); err != nil {
		return err
	}
	name := path.Join(ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())
	if written[name] {
		return nil
	}
	written[name] = true
	ra, err := store.ReaderAt(ctx, desc)
	if err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, err)
	}
	defer ra.Close()
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o444, Size: ra.Size(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(out, content.NewReader(ra))
	return err
}
