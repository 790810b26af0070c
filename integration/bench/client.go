package main

import (
	"context"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
)

// clientPull pulls with containerd's client, which fetches by itself and hands the
// content to the daemon. For referrers images.SetReferrers stands in the
// handler chain, as client/pull.go puts it there for WithReferrersProvider; that
// option itself loses the index's referrers, since Pull limits what an index
// leads to to one manifest.
func clientPull(referrers bool) func(context.Context, *daemon.Daemon, *stage) error {
	return func(ctx context.Context, d *daemon.Daemon, st *stage) error {
		options := config.HostOptions{HostDir: config.HostDirFromRoot(st.host)}
		if st.auth {
			options.Credentials = func(string) (string, string, error) { return user, password, nil }
		}
		resolver := &oneFetcher{Resolver: docker.NewResolver(docker.ResolverOptions{Hosts: config.ConfigureHosts(ctx, options)})}
		opts := []containerd.RemoteOpt{containerd.WithResolver(resolver), containerd.WithPullUnpack}
		if referrers {
			store := d.Client.ContentStore()
			opts = append(opts, containerd.WithImageHandlerWrapper(func(h images.Handler) images.Handler {
				with := images.SetReferrers(&provider{resolver, st.ref()}, h.Handle)
				return images.SetChildrenLabels(store, with)
			}))
		}
		_, err := d.Client.Pull(ctx, st.ref(), opts...)
		return err
	}
}

// oneFetcher gives the pull and the referrers' provider one fetcher, so that they
// share connections and tokens; each asks for its own otherwise.
type oneFetcher struct {
	remotes.Resolver
	once    sync.Once
	fetcher remotes.Fetcher
	err     error
}

func (r *oneFetcher) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	r.once.Do(func() { r.fetcher, r.err = r.Resolver.Fetcher(ctx, ref) })
	return r.fetcher, r.err
}

// provider lists referrers by containerd's fetcher.
type provider struct {
	resolver remotes.Resolver
	ref      string
}

func (p *provider) Referrers(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	f, err := p.resolver.Fetcher(ctx, p.ref)
	if err != nil {
		return nil, err
	}
	lister, ok := f.(remotes.ReferrersFetcher)
	if !ok {
		return nil, errdefs.ErrNotImplemented
	}
	return lister.FetchReferrers(ctx, desc.Digest)
}
