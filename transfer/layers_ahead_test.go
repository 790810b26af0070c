package transfer

import (
	"testing"

	"github.com/containerd/containerd/v2/core/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/ahead"
)

// optionSource is an image whose resolver takes options.
type optionSource struct {
	image
	took int
}

func (s *optionSource) SetResolverOptions(opts ...transfer.ImageResolverOption) { s.took = len(opts) }

// Layers are opened ahead where all that unpack the image are known to need them, and they come in one piece.
// The options reach the source in any case.
func TestWhenLayersAreOpenedAhead(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		known   []string
		unpacks []string
		buffer  int
		want    bool
	}{
		"nothing is unpacked":          {[]string{"", "overlayfs"}, nil, 0, false},
		"the default snapshotter":      {[]string{"", "overlayfs"}, []string{""}, 0, true},
		"one that is known":            {[]string{"overlayfs"}, []string{"overlayfs"}, 0, true},
		"one that is not":              {[]string{"", "overlayfs"}, []string{"stargz"}, 0, false},
		"one of two is not":            {[]string{"", "overlayfs"}, []string{"overlayfs", "stargz"}, 0, false},
		"the default may be a remote":  {[]string{"overlayfs"}, []string{""}, 0, false},
		"none are known":               {nil, []string{"overlayfs"}, 0, false},
		"layers are fetched in pieces": {[]string{"overlayfs"}, []string{"overlayfs"}, 1024, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			src := &optionSource{image: image{b, ocispec.Descriptor{}}}
			s := &pullSource{ImageFetcher: src, p: &pull{query: &query{t: New(Config{Store: b.store, Snapshotters: tc.known})}}}
			for _, name := range tc.unpacks {
				s.unpacks = append(s.unpacks, transfer.UnpackConfiguration{Snapshotter: name})
			}
			s.SetResolverOptions(transfer.WithMaxConcurrentDownloads(3), transfer.WithConcurrentLayerFetchBuffer(tc.buffer))
			f, err := s.Fetcher(b.ctx, "registry.example.com/app:v1")
			if err != nil {
				t.Fatal(err)
			}
			if _, got := f.(*ahead.Fetcher); got != tc.want || (s.p.ahead != nil) != tc.want {
				t.Errorf("the fetcher is a %T, opening ahead is %t, want %t", f, s.p.ahead != nil, tc.want)
			}
			if src.took != 2 {
				t.Errorf("%d options reached the source, want 2", src.took)
			}
		})
	}
}
