package transfer

import (
	"context"
	"slices"

	"github.com/containerd/containerd/v2/core/transfer"

	"github.com/transfer-referrers/transfer-referrers/transfer/ahead"
)

// Fetcher implements transfer.ImageFetcher. Where the image is unpacked by a snapshotter that needs
// the content of its layers, the first of them are opened while the config is fetched.
func (s *pullSource) Fetcher(ctx context.Context, ref string) (transfer.Fetcher, error) {
	opener, err := s.ImageFetcher.Fetcher(ctx, ref) // before SetResolverOptions: it takes no slots
	if err != nil {
		return nil, err
	}
	if setter, ok := s.ImageFetcher.(transfer.ImageResolverOptionSetter); ok {
		setter.SetResolverOptions(s.opts...)
	}
	fetcher, err := s.ImageFetcher.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	var options transfer.ImageResolverOptions
	for _, opt := range s.opts {
		opt(&options)
	}
	// With a buffer a layer comes in parts, which are read at once and not when they are wanted.
	if !s.opensLayersAhead() || options.Performances.ConcurrentLayerFetchBuffer > 0 {
		return fetcher, nil
	}
	s.p.ahead = ahead.New(ctx, ahead.Config{
		Fetcher: fetcher, Opener: opener,
		Slots: options.DownloadLimiter, Downloads: options.Performances.MaxConcurrentDownloads,
		Store: s.p.t.config.Store, Layers: &s.p.t.layers,
	})
	return s.p.ahead, nil
}

// opensLayersAhead reports whether the image is unpacked, and by nothing but snapshotters that
// are known to need the content of every layer. Without unpacking, containerd fetches the layers
// beside the config in any case.
func (s *pullSource) opensLayersAhead() bool {
	for _, u := range s.unpacks {
		if !slices.Contains(s.p.t.config.Snapshotters, u.Snapshotter) {
			return false
		}
	}
	return len(s.unpacks) > 0
}
