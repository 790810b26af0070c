package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// ForPush returns the repository at the one host that pushes go to: the first that
// may push, as containerd's pusher chooses it, whatever else it may do. Its requests
// ask for the token that the pusher has. The error is errdefs.ErrNotFound where no
// host may push.
func (r *Repository) ForPush() (*Repository, error) {
	hosts := r.Hosts(docker.HostCapabilityPush)
	if len(hosts) == 0 {
		return nil, fmt.Errorf(`no host of %s may push (capability "push" in hosts.toml): %w`, r.spec.Hostname(), errdefs.ErrNotFound)
	}
	host := hosts[0].RegistryHost
	host.Capabilities |= docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityReferrers
	return &Repository{
		spec:   r.spec,
		name:   r.name,
		hosts:  []*Host{{RegistryHost: host, health: hosts[0].health, session: hosts[0].session}},
		header: r.header,
		limits: r.limits,
		push:   true,

		endpoints: &endpoints{},
	}, nil
}

// Has reports whether the host has the manifest or index. An answer other than yes or
// no is an error.
func (r *Repository) Has(ctx context.Context, h *Host, mediaType string, dgst digest.Digest) (bool, error) {
	q := request{method: http.MethodHead, url: r.URL(h, "manifests", dgst.String()), accept: mediaType + ", */*"}
	found := false
	err := r.perform(ctx, h, q, func(resp *http.Response) error {
		switch resp.StatusCode {
		case http.StatusOK:
			found = true
			return nil
		case http.StatusNotFound:
			return nil
		}
		return methodError(q, resp.StatusCode, "")
	})
	return found, err
}

// PutManifest puts a manifest or index under a tag or its digest, and returns the
// header of the answer, which tells whether the registry took note of its subject (OCI
// distribution-spec, "Pushing Manifests with Subject").
func (r *Repository) PutManifest(ctx context.Context, h *Host, reference, mediaType string, data []byte) (http.Header, error) {
	q := request{method: http.MethodPut, url: r.URL(h, "manifests", reference), contentType: mediaType, body: data}
	var header http.Header
	err := r.perform(ctx, h, q, func(resp *http.Response) error {
		switch resp.StatusCode {
		case http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent: // as containerd's pusher
			discard(resp.Body)
			header = resp.Header
			return nil
		}
		return methodError(q, resp.StatusCode, complaint(resp))
	})
	return header, err
}

// complaint returns the beginning of what a registry says is wrong, fit for a log.
func complaint(resp *http.Response) string {
	if b, ok := resp.Body.(*body); ok {
		limit := time.AfterFunc(time.Second, func() { b.cancel(nil) })
		defer limit.Stop()
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // what came will do
	data = bytes.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return ' '
	}, data)
	return strings.TrimSpace(string(data))
}

// methodError is statusError for requests that are not reads.
func methodError(q request, code int, complaint string) error {
	err := fmt.Errorf("%s %s: %d %s", q.method, redact(q.url), code, http.StatusText(code))
	if complaint != "" {
		err = fmt.Errorf("%w: %s", err, complaint)
	}
	return fmt.Errorf("%w: %w", err, statusKind(code))
}
