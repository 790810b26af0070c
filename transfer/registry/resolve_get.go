package registry

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// resolveTransport saves a pull a round trip. containerd's resolver asks what a
// reference names with HEAD, and its fetcher then gets the manifest of that digest;
// here the first is a GET as well (OCI distribution-spec, "Pulling manifests"), and
// the second is answered with what it brought. The fetcher verifies it as it does
// any answer.
//
// Registries count GETs of manifests against their limits, and not HEADs. A pull of
// an image that is not there makes one either way; one of an image that is there
// should keep to HEAD. So should requests of ours, which ask with HEAD to be spared the GET;
// nor is an answer to them the image's.
type resolveTransport struct {
	http.RoundTripper

	mu   sync.Mutex
	kept map[string]*http.Response // by the address of the digest; bodies are read
	data map[string][]byte
}

// wrapResolve puts the transport around that of the first host which may pull, if it
// may resolve: others are not the ones that the fetcher asks next.
func wrapResolve(hosts []docker.RegistryHost) {
	for i, h := range hosts {
		if !h.Capabilities.Has(docker.HostCapabilityPull) {
			continue
		}
		if h.Client == nil || !h.Capabilities.Has(docker.HostCapabilityResolve) {
			return
		}
		inner := h.Client.Transport
		if inner == nil {
			inner = http.DefaultTransport
		}
		client := *h.Client
		client.Transport = &resolveTransport{RoundTripper: inner, kept: map[string]*http.Response{}, data: map[string][]byte{}}
		hosts[i].Client = &client
		return
	}
}

// RoundTrip implements http.RoundTripper.
func (t *resolveTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if path.Base(path.Dir(req.URL.Path)) == "manifests" && req.Header.Get("Range") == "" && !isOurs(req.Context()) {
		switch req.Method {
		case http.MethodHead:
			if req.Response != nil { // a redirect that was made for HEAD, and may be signed for it
				break
			}
			return t.resolve(req)
		case http.MethodGet:
			if resp := t.take(req); resp != nil {
				return resp, nil
			}
		}
	}
	return t.RoundTripper.RoundTrip(req)
}

// resolve answers a HEAD with a GET. What cannot be kept, since it is too long, or
// encoded, or not what the registry says, is asked for as containerd does.
func (t *resolveTransport) resolve(req *http.Request) (*http.Response, error) {
	get := req.Clone(req.Context())
	get.Method = http.MethodGet
	get.Header.Set("Accept-Encoding", "identity")
	resp, err := t.RoundTripper.RoundTrip(get)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		// Where it leads may be signed for GET, and would be asked with HEAD.
		resp.Body.Close()
		return t.RoundTripper.RoundTrip(req)
	}
	resp.Request = req
	if resp.StatusCode != http.StatusOK {
		return resp, nil
	}
	dgst := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	data, err := io.ReadAll(io.LimitReader(resp.Body, artifact.MaxManifestSize+1))
	resp.Body.Close()
	if err != nil || len(data) > artifact.MaxManifestSize || resp.Header.Get("Content-Encoding") != "" ||
		dgst.Validate() != nil || dgst.Algorithm().FromBytes(data) != dgst {
		return t.RoundTripper.RoundTrip(req)
	}
	resp.Body, resp.ContentLength = http.NoBody, int64(len(data))
	resp.Header.Set("Content-Length", strconv.Itoa(len(data)))
	kept := *resp // whoever gets resp may change it
	kept.Header = resp.Header.Clone()
	t.mu.Lock()
	defer t.mu.Unlock()
	key := digestAddress(req.URL, dgst.String())
	t.kept[key], t.data[key] = &kept, data
	return resp, nil
}

// take returns the answer that is kept for the request, once.
func (t *resolveTransport) take(req *http.Request) *http.Response {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := digestAddress(req.URL, path.Base(req.URL.Path))
	kept, data := t.kept[key], t.data[key]
	if kept == nil {
		return nil
	}
	delete(t.kept, key)
	delete(t.data, key)
	resp := *kept
	resp.Header, resp.Request, resp.Body = kept.Header.Clone(), req, io.NopCloser(bytes.NewReader(data))
	return &resp
}

// digestAddress is that of the manifest with the digest, beside the one at u.
func digestAddress(u *url.URL, dgst string) string {
	at := *u
	at.Path, at.RawPath = path.Join(path.Dir(u.Path), dgst), ""
	return at.String()
}

// CloseIdleConnections serves http.Client.CloseIdleConnections.
func (t *resolveTransport) CloseIdleConnections() {
	if c, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
