package registry

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// AcceptAny accepts whatever lies under a tag. distribution answers 404 for a tag
// that holds what is not accepted: it would be taken for absent, or overwritten.
var AcceptAny = strings.Join([]string{
	ocispec.MediaTypeImageIndex,
	ocispec.MediaTypeImageManifest,
	images.MediaTypeDockerSchema2ManifestList,
	images.MediaTypeDockerSchema2Manifest,
	"*/*",
}, ", ")

// Response is a registry's answer, read whole.
type Response struct {
	URL    *url.URL // where it came from, after redirects
	Code   int
	Header http.Header
	Body   []byte // of a 200 only
}

// StatusCode returns the code, 0 where no answer came.
func (a *Response) StatusCode() int {
	if a == nil {
		return 0
	}
	return a.Code
}

// address returns where the answer came from, nil where none came.
func (a *Response) address() *url.URL {
	if a == nil {
		return nil
	}
	return a.URL
}

// MediaType returns the content type without its parameters, in lower case.
func (a *Response) MediaType() string {
	name, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(name))
}

// Get reads the address at the host whole, at most MaxManifestSize bytes. An
// answer of any status is no error. [ErrTooLarge] marks one over the limit;
// other errors are of the transport. With an error, the answer is what came of it,
// or nil. An answer may be one that is remembered (see [AnswerCache]).
func (r *Repository) Get(ctx context.Context, h *Host, u *url.URL, accept string) (*Response, error) {
	return r.ask(ctx, h, request{method: http.MethodGet, url: u, accept: accept})
}

// ask is Get for a request of its own kind.
func (r *Repository) ask(ctx context.Context, h *Host, q request) (*Response, error) {
	asks := operation(q.url)
	if asks == OpTag && (r.known != nil || h.Host == dockerHub) {
		if a, err := r.head(ctx, h, q); a != nil || err != nil {
			return a, err
		}
	}
	var kept *cachedAnswer
	if asks == OpReferrers {
		kept = r.answers.get(h.remembered(q.url))
	}
	a, err := r.read(ctx, h, q, kept)
	if err == nil && a.Code == http.StatusNotModified && kept != nil { // of another address
		a, err = r.read(ctx, h, q, nil)
	}
	if err == nil && asks != OpManifest {
		r.answers.put(h.remembered(q.url), q.url, a)
	}
	return a, err
}

// read makes the request, on the condition that its answer is not what is kept, where
// anything is.
func (r *Repository) read(ctx context.Context, h *Host, q request, kept *cachedAnswer) (*Response, error) {
	if kept != nil {
		q.unless = kept.etag
	}
	var a *Response
	err := r.perform(ctx, h, q, func(resp *http.Response) (err error) {
		if a = kept.unchanged(resp); a != nil {
			return nil
		}
		a = &Response{URL: resp.Request.URL, Code: resp.StatusCode, Header: resp.Header}
		if resp.StatusCode != http.StatusOK {
			discard(resp.Body)
			return nil
		}
		a.Body, err = r.readAll(resp, artifact.MaxManifestSize)
		return err
	})
	return a, err
}

// Manifest reads a manifest or index whole and verifies it against its descriptor's
// digest, which vouches for it whatever size the descriptor has. It asks the hosts that
// may pull, in order, until one has it. The descriptor's URLs and inline data are not used.
func (r *Repository) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := artifact.Check(desc, artifact.MaxManifestSize); err != nil {
		return nil, err
	}
	var data []byte
	err := r.eachHost(func(r *Repository, h *Host) error {
		// A listing may be wrong about the type; the digest vouches for any.
		a, err := r.Get(ctx, h, r.URL(h, "manifests", desc.Digest.String()), desc.MediaType+", "+AcceptAny)
		if err != nil {
			return err
		}
		if a.Code != http.StatusOK {
			return statusError(a.URL, a.Code)
		}
		if err := artifact.VerifyDigest(a.Body, desc.Digest); err != nil {
			return err
		}
		data = a.Body
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return data, nil
}

// Blob calls use with the stream of a blob until use returns nil: again where a
// connection broke, and from the next host that may pull where one failed. How
// many bytes come and what digest they have is for use to verify. The
// descriptor's URLs and inline data are not used.
func (r *Repository) Blob(ctx context.Context, desc ocispec.Descriptor, use func(io.Reader) error) error {
	if err := artifact.Check(desc, math.MaxInt64); err != nil {
		return err
	}
	err := r.eachHost(func(r *Repository, h *Host) error {
		// Whatever type the descriptor claims: another referrer may name the same blob.
		u := r.URL(h, "blobs", desc.Digest.String())
		return r.get(ctx, h, u, "*/*", func(resp *http.Response) error { return r.stream(resp, desc, use) })
	})
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	return nil
}

func (r *Repository) stream(resp *http.Response, desc ocispec.Descriptor, use func(io.Reader) error) error {
	if resp.StatusCode != http.StatusOK {
		discard(resp.Body)
		return statusError(resp.Request.URL, resp.StatusCode)
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return fmt.Errorf("content encoding %q, where identity was asked for: %w", encoding, errdefs.ErrInvalidArgument)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != desc.Size {
		return fmt.Errorf("%d bytes announced, %d expected: %w", resp.ContentLength, desc.Size, errdefs.ErrFailedPrecondition)
	}
	return use(&watched{body: resp.Body.(*body), limits: r.limits})
}

// eachHost tries the hosts in order and returns the first error where none
// succeeds; a host that merely lacks the content does not hide what went wrong
// elsewhere.
func (r *Repository) eachHost(try func(*Repository, *Host) error) error {
	hosts := r.Hosts(docker.HostCapabilityPull)
	if len(hosts) == 0 {
		return fmt.Errorf("no host of %s may pull: %w", r.spec.Hostname(), errdefs.ErrNotFound)
	}
	var first error
	done := false
	r.askInTurn(hosts, func(r *Repository, h *Host) (answered, end bool) {
		err := try(r, h)
		if err == nil {
			done = true
			return true, true
		}
		err = fmt.Errorf("%s: %w", h.Host, err)
		if first == nil || errdefs.IsNotFound(first) && !errdefs.IsNotFound(err) {
			first = err
		}
		return false, false // content that is not there may be at a host that fails
	})
	if done {
		return nil
	}
	return first
}

// statusError names the request without its secrets.
func statusError(u *url.URL, code int) error {
	return fmt.Errorf("GET %s: %d %s: %w", redact(u), code, http.StatusText(code), statusKind(code))
}

func statusKind(code int) error {
	switch code {
	case http.StatusNotFound:
		return errdefs.ErrNotFound
	case http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	default:
		return errdefs.ErrUnavailable
	}
}

// FallbackTag returns the tag under which registries without the referrers
// endpoint keep the listing of a subject (OCI distribution-spec, "Referrers Tag
// Schema"): the algorithm cut to 32 characters and the hash cut to 64, so that
// sha512 subjects fit a tag. The digest must be valid.
func FallbackTag(subject digest.Digest) string {
	algorithm, hash := subject.Algorithm().String(), subject.Encoded()
	return algorithm[:min(len(algorithm), 32)] + "-" + hash[:min(len(hash), 64)]
}
