package transfer

import (
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// destination passes on every optional interface of an image store, for those that
// stand around one: one lost, and unpacking or platform filters would vanish
// without a word.
type destination struct{ transfer.ImageStorer }

var (
	_ transfer.ImageFilterer        = destination{}
	_ transfer.ImageUnpacker        = destination{}
	_ transfer.ImagePlatformsGetter = destination{}
	_ fmt.Stringer                  = destination{}
)

func (d destination) ImageFilter(h images.HandlerFunc, store content.Store) images.HandlerFunc {
	if f, ok := d.ImageStorer.(transfer.ImageFilterer); ok {
		return f.ImageFilter(h, store)
	}
	return h
}

func (d destination) UnpackPlatforms() []transfer.UnpackConfiguration {
	if u, ok := d.ImageStorer.(transfer.ImageUnpacker); ok {
		return u.UnpackPlatforms()
	}
	return nil
}

func (d destination) Platforms() []ocispec.Platform {
	if g, ok := d.ImageStorer.(transfer.ImagePlatformsGetter); ok {
		return g.Platforms()
	}
	return nil
}

func (d destination) String() string { return fmt.Sprint(d.ImageStorer) }
