package archive

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// maxScanned is how many of an archive's files are looked at for manifests.
const maxScanned = 10_000

// Source is an archive that is imported, watched for the manifests in it: many tools keep
// referrers by their subject field alone (oras, regctl), so that no index names them.
type Source struct {
	transfer.ImageImporter

	mu      sync.Mutex
	objects []digest.Digest // files that may be manifests
	more    bool            // there were more than maxScanned
}

// NewSource watches the archive.
func NewSource(i transfer.ImageImporter) *Source { return &Source{ImageImporter: i} }

// Import implements transfer.ImageImporter.
func (s *Source) Import(ctx context.Context, store content.Store) (ocispec.Descriptor, error) {
	return s.ImageImporter.Import(ctx, watchedStore{store, s})
}

// Referrers returns the manifests of the archive that name a subject, with their subjects
// by digest. It is for when all content is in.
func (s *Source) Referrers(ctx context.Context, store stored.Store) ([]ocispec.Descriptor, map[digest.Digest]digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more {
		log.G(ctx).Warnf("referrers: the archive holds more than %d files that may be manifests; referrers behind them are found only where its index says what they refer to", maxScanned)
	}
	var found []ocispec.Descriptor
	subjects := map[digest.Digest]digest.Digest{}
	for _, dgst := range s.objects {
		if ctx.Err() != nil {
			break
		}
		info, err := store.Info(ctx, dgst)
		if err != nil || subjects[dgst] != "" {
			continue
		}
		m, err := stored.Manifest(ctx, store, ocispec.Descriptor{Digest: dgst, Size: info.Size})
		if err != nil || m.Subject == nil || len(m.Blobs)+len(m.Manifests) == 0 {
			continue // a config, an SBOM, an image
		}
		subjects[dgst] = m.Subject.Digest
		found = append(found, ocispec.Descriptor{MediaType: m.MediaType, ArtifactType: m.ArtifactType, Digest: dgst, Size: info.Size})
	}
	return found, subjects
}

func (s *Source) add(dgst digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.objects) == maxScanned {
		s.more = true
		return
	}
	s.objects = append(s.objects, dgst)
}

type watchedStore struct {
	content.Store
	source *Source
}

func (s watchedStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := s.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &watchedWriter{Writer: w, source: s.source}, nil
}

// watchedWriter notes what is as large as a manifest may be and begins as JSON does.
type watchedWriter struct {
	content.Writer
	source *Source
	begun  bool
	object bool
}

func (w *watchedWriter) Write(data []byte) (int, error) {
	if !w.begun && len(data) > 0 {
		w.begun, w.object = true, startsObject(data)
	}
	return w.Writer.Write(data)
}

// startsObject reports whether the first byte that is no white space opens an object.
func startsObject(data []byte) bool {
	for _, b := range data {
		switch b {
		case ' ', '\t', '\r', '\n':
		default:
			return b == '{'
		}
	}
	return false
}

func (w *watchedWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	dgst := expected
	if dgst == "" {
		dgst = w.Digest()
	}
	err := w.Writer.Commit(ctx, size, expected, opts...)
	if (err == nil || errdefs.IsAlreadyExists(err)) && w.object && size <= artifact.MaxManifestSize && dgst.Validate() == nil {
		w.source.add(dgst)
	}
	return err
}
