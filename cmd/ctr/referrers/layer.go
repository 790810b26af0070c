package referrers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// layerOf returns the one layer of the referrer that is meant.
func layerOf(ctx context.Context, cmd *cli.Command, store content.Provider, r stored.Referrer) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	data, err := stored.ReadManifest(ctx, store, r.Descriptor())
	if err == nil {
		err = artifact.Verify(data, r.Descriptor())
	}
	if err == nil && artifact.IsIndex(r.MediaType) {
		return none, exitf(exitNone, "referrer %s is an index and has no layers; --manifest prints it", r.Digest)
	}
	var manifest *artifact.Manifest
	if err == nil {
		manifest, err = artifact.Parse(data, r.MediaType)
	}
	if err != nil {
		return none, fmt.Errorf("manifest of referrer %s: %w", r.Digest, err)
	}
	layers := manifest.Layers()
	var chosen []int
	for i, l := range layers {
		if (!cmd.IsSet("layer") || i == cmd.Int("layer")) &&
			(!cmd.IsSet("media-type") || strings.EqualFold(l.MediaType, cmd.String("media-type"))) {
			chosen = append(chosen, i)
		}
	}
	switch {
	case len(layers) == 0:
		return none, exitf(exitNone, "referrer %s has no layers; --manifest prints what it says", r.Digest)
	case len(chosen) == 0:
		return none, exitf(exitNone, "referrer %s has no such layer among its %d; leave out --layer and --media-type to see them", r.Digest, len(layers))
	case len(chosen) > 1:
		return none, severalLayers(cmd.Root().ErrWriter, r.Digest, layers, chosen)
	}
	return layers[chosen[0]], nil
}

// stream prints content, and verifies it as it goes.
func stream(ctx context.Context, w io.Writer, store content.Provider, desc ocispec.Descriptor, image string) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", desc.Digest, err)
	}
	ra, err := store.ReaderAt(ctx, desc)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%s is not in the content store any more; `ctr referrers fetch %s` brings it: %w", desc.Digest, image, err)
	}
	if err != nil {
		return err
	}
	defer ra.Close()
	end := func() error { return nil }
	if isTerminal(w) {
		t := &terminalWriter{w: w}
		w, end = t, t.Close
	}
	verifier := desc.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(w, verifier), content.NewReader(ra))
	if err := errors.Join(err, end()); err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, err)
	}
	if !verifier.Verified() || n != desc.Size {
		return fmt.Errorf("%s is damaged in the content store (%d bytes of other content, where %d are named): do not use what was printed; remove it with `ctr content rm` and fetch it again: %w", desc.Digest, n, desc.Size, errdefs.ErrDataLoss)
	}
	return nil
}
