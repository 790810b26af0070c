// Package source is the image source of a referrers-aware pull: an image in a
// registry, as containerd's own OCIRegistry is one, with a selection of the
// referrers to take. As the destination of a push it selects those to carry.
//
// Clients make one with [New] and hand it to containerd's client in place of an
// OCIRegistry. In the daemon every source becomes one: the service plugin makes
// it from the message of any client, and [Open] from what CRI hands over
// in-process. It then has the registry's hosts of the daemon's sessions, so that the image
// and its referrers, and one pull and the next, share connections and tokens.
package source

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	tplugins "github.com/containerd/containerd/v2/core/transfer/plugins"
	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

func init() {
	tplugins.Register(&api.Source{}, &Source{})
}

// Source is an image in a registry, and what of its referrers to take.
type Source struct {
	selection *api.Selection

	// Set by New, on the client's side.
	client *ociregistry.OCIRegistry

	// Set by UnmarshalAny, in the daemon.
	message  *transfertypes.OCIRegistry
	header   http.Header
	registry *registry.Client
	resolver remotes.Resolver
	// askCredentials asks the client, nil where it has none.
	askCredentials func(host string) (string, string, error)

	mu      sync.Mutex
	claimed bool
}

var (
	_ transfer.ImageFetcher              = (*Source)(nil)
	_ transfer.ImagePusher               = (*Source)(nil)
	_ transfer.ImageResolverOptionSetter = (*Source)(nil)
	_ fmt.Stringer                       = (*Source)(nil)
)

// Opt configures a Source made by New.
type Opt func(*options) error

type options struct {
	registry  []ociregistry.Opt
	selection *api.Selection
}

// WithRegistry configures the registry as containerd's ociregistry.NewOCIRegistry
// does: credentials, headers, hosts directory, default scheme, HTTP debugging.
func WithRegistry(opts ...ociregistry.Opt) Opt {
	return func(o *options) error {
		o.registry = append(o.registry, opts...)
		return nil
	}
}

// WithSelection says what to take of the image's referrers, in place of the
// artifact types of the operator's rule. On a push it says which stored referrers
// to carry; one without artifact types carries them all. A daemon without the plugin
// refuses such a transfer rather than to leave the referrers out without a word. nil
// selects nothing.
func WithSelection(selection *api.Selection) Opt {
	return func(o *options) error {
		o.selection = selection
		return nil
	}
}

// New returns a source for containerd's client: client.Transfer(ctx, src,
// image.NewStore(ref)). ref is a full reference, "docker.io/library/alpine:3.22".
//
// Without [WithSelection] the message is that of containerd's OCIRegistry, which every
// daemon takes; one with the plugin does what the operator's rule says.
func New(ctx context.Context, ref string, opts ...Opt) (*Source, error) {
	var o options
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	r, err := ociregistry.NewOCIRegistry(ctx, ref, o.registry...)
	if err != nil {
		return nil, err
	}
	return &Source{client: r, selection: o.selection}, nil
}

// Image returns the reference.
func (s *Source) Image() string {
	if s.client != nil {
		return s.client.Image()
	}
	return s.message.GetReference()
}

// String is what containerd's own source says, for progress and logs.
func (s *Source) String() string { return fmt.Sprintf("OCI Registry (%s)", s.Image()) }

// Opened reports whether the source is one of the daemon's, made from a message.
func (s *Source) Opened() bool { return s.message != nil }

// Claim returns the client's selection, nil where it sent none, and marks it as honoured:
// a source with a selection that no one claimed refuses to resolve and to push.
func (s *Source) Claim() *api.Selection {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claimed = true
	return s.selection
}

// ResolveByGet has Resolve get the manifest, in place of asking for its digest alone, so
// that the fetcher has it without another request. It is for images that are
// not there: registries count the GET against their limits. It must come before
// Resolve, on a source of the daemon's.
func (s *Source) ResolveByGet() {
	if s.registry != nil {
		s.registry.ResolveByGet()
	}
}

// Resolve implements transfer.ImageResolver. It refuses with
// errdefs.ErrFailedPrecondition where the client sent a selection that no one
// claimed: the referrers plugin is not active.
func (s *Source) Resolve(ctx context.Context) (string, ocispec.Descriptor, error) {
	if err := s.checkClaimed("pull"); err != nil {
		return "", ocispec.Descriptor{}, err
	}
	if s.client != nil {
		return s.client.Resolve(ctx)
	}
	name, desc, err := s.resolver.Resolve(ctx, s.Image())
	if err == nil {
		s.registry.Settled()
	}
	return name, desc, err
}

func (s *Source) checkClaimed(operation string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.selection == nil || s.claimed {
		return nil
	}
	return fmt.Errorf(`the %s selects referrers, but the referrers plugin is not active; add "io.containerd.transfer.v1.local" and "io.containerd.grpc.v1.transfer" to disabled_plugins in containerd's config.toml: %w`, operation, errdefs.ErrFailedPrecondition)
}

// SetResolverOptions implements transfer.ImageResolverOptionSetter.
func (s *Source) SetResolverOptions(opts ...transfer.ImageResolverOption) {
	if s.client != nil {
		s.client.SetResolverOptions(opts...)
	} else if r, ok := s.resolver.(remotes.ResolverWithOptions); ok {
		r.SetOptions(opts...)
	}
}

// Fetcher implements transfer.ImageFetcher.
func (s *Source) Fetcher(ctx context.Context, ref string) (transfer.Fetcher, error) {
	if s.client != nil {
		return s.client.Fetcher(ctx, ref)
	}
	f, err := s.resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return sizedFetcher{f}, nil
}

// sizedFetcher says how large what it fetches is, which chooses the connection.
type sizedFetcher struct{ transfer.Fetcher }

// Fetch implements transfer.Fetcher.
func (f sizedFetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if !artifact.IsReferrer(desc.MediaType) {
		ctx = registry.WithSize(ctx, desc.Size)
	}
	return f.Fetcher.Fetch(ctx, desc)
}

// Pusher implements transfer.ImagePusher. The reference's tag is set for the
// given descriptor only. Like Resolve it refuses a selection that no one claimed.
func (s *Source) Pusher(ctx context.Context, desc ocispec.Descriptor) (transfer.Pusher, error) {
	if err := s.checkClaimed("push"); err != nil {
		return nil, err
	}
	if s.client != nil {
		return s.client.Pusher(ctx, desc)
	}
	ref := s.Image()
	if spec, err := reference.Parse(ref); err == nil && spec.Digest() == "" {
		ref += "@" + desc.Digest.String()
	}
	p, err := s.resolver.Pusher(ctx, ref)
	if err != nil {
		return nil, err
	}
	if in, ok := p.(content.Ingester); ok {
		return sizedIngester{sizedPusher{p}, in}, nil
	}
	return sizedPusher{p}, nil
}

// sizedPusher is sizedFetcher for a push.
type sizedPusher struct{ transfer.Pusher }

// Push implements transfer.Pusher.
func (p sizedPusher) Push(ctx context.Context, desc ocispec.Descriptor) (content.Writer, error) {
	return p.Pusher.Push(registry.WithSize(ctx, desc.Size), desc)
}

// sizedIngester is one through whose Writer containerd pushes, as its own is.
type sizedIngester struct {
	sizedPusher
	in content.Ingester
}

// Writer implements content.Ingester.
func (p sizedIngester) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	return p.in.Writer(registry.WithSize(ctx, o.Desc.Size), opts...)
}

// Repository returns the repository to ask for referrers. It shares the hosts of
// the image's own pull, but neither its limiter nor its retries.
func (s *Source) Repository() (*registry.Repository, error) {
	return s.registry.Repository(s.Image(), s.header, registry.Limits{})
}

// PushRepository returns the repository to push referrers to: at the host, and
// with the token, of the image's own push. The error is errdefs.ErrNotFound where
// no host may push.
func (s *Source) PushRepository() (*registry.Repository, error) {
	// A registry checks what it stores before it answers.
	r, err := s.registry.Repository(s.Image(), s.header, registry.Limits{Request: time.Minute})
	if err != nil {
		return nil, err
	}
	return r.ForPush()
}

// UseSessions has the source's requests use, and add to, what the daemon remembers of its
// registry. It must come before any of them; without, nothing outlives the source.
func (s *Source) UseSessions(sessions *registry.Sessions) { s.registry.UseSessions(sessions) }

// Known reports whether the registry is remembered, and whether many requests at once share a
// connection (see registry.Client). The source must be one of the daemon's.
func (s *Source) Known() (known, multiplexed bool) { return s.registry.Known(s.Image()) }

// Close closes the connections that no session keeps.
func (s *Source) Close() {
	if s.registry != nil {
		s.registry.Close()
	}
}
