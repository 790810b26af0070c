// Package archive exports images with the referrers that are stored with them, and
// ties them to their images again when such an archive is imported. The form is
// what containerd's archive package and Docker Engine read: each referrer is a
// manifest of the archive's index.json, with the annotation
// io.containerd.manifest.subject.
package archive

import (
	"context"
	"fmt"
	"io"

	ctypes "github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/streaming"
	"github.com/containerd/containerd/v2/core/transfer"
	tstreaming "github.com/containerd/containerd/v2/core/transfer/streaming"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Stream is the destination of an export that came as containerd's
// ImageExportStream message.
type Stream struct {
	message   transfertypes.ImageExportStream
	stream    io.WriteCloser
	referrers bool
}

var (
	_ transfer.ImageExporter       = (*Stream)(nil)
	_ transfer.ImageExportStreamer = (*Stream)(nil)
)

// UnmarshalAny reads the message. The context is that of the transfer.
func (s *Stream) UnmarshalAny(ctx context.Context, sg streaming.StreamGetter, any typeurl.Any) error {
	if err := typeurl.UnmarshalTo(any, &s.message); err != nil {
		return err
	}
	stream, err := sg.Get(ctx, s.message.Stream)
	if err != nil {
		return fmt.Errorf("export stream: %w", err)
	}
	s.stream = tstreaming.WriteByteStream(ctx, stream)
	return nil
}

// WithReferrers returns a stream that carries referrers as well.
func (s *Stream) WithReferrers() *Stream {
	return &Stream{message: transfertypes.ImageExportStream{
		Stream: s.message.Stream, MediaType: s.message.MediaType, Platforms: s.message.Platforms,
		AllPlatforms: s.message.AllPlatforms, SkipCompatibilityManifest: s.message.SkipCompatibilityManifest,
		SkipNonDistributable: s.message.SkipNonDistributable,
	}, stream: s.stream, referrers: true}
}

// ExportStream implements transfer.ImageExportStreamer.
func (s *Stream) ExportStream(context.Context) (io.WriteCloser, string, error) {
	return s.stream, s.message.MediaType, nil
}

// Export implements transfer.ImageExporter, with the options that containerd's
// own stream has.
func (s *Stream) Export(ctx context.Context, store content.Store, imgs []images.Image) error {
	match := platforms.DefaultStrict()
	if ps := platformsOf(s.message.Platforms); len(ps) > 0 {
		match = platforms.Ordered(ps...)
	}
	opts := []archive.ExportOpt{archive.WithImages(imgs), archive.WithPlatform(match)}
	if s.message.AllPlatforms {
		opts = append(opts, archive.WithAllPlatforms())
	}
	if s.message.SkipCompatibilityManifest {
		opts = append(opts, archive.WithSkipDockerManifest())
	}
	if s.message.SkipNonDistributable {
		opts = append(opts, archive.WithSkipNonDistributableBlobs())
	}
	if !s.referrers {
		return archive.Export(ctx, store, s.stream, opts...)
	}
	return exportWithReferrers(ctx, store, imgs, s.stream, opts)
}

func platformsOf(in []*ctypes.Platform) []ocispec.Platform {
	var out []ocispec.Platform
	for _, p := range in {
		out = append(out, ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures})
	}
	return out
}
