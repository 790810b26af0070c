package registry

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Operation is what a request is for.
type Operation string

// The operations.
const (
	// OpReferrers asks the referrers endpoint, for any of its pages.
	OpReferrers Operation = "referrers"
	// OpTag reads what lies under a tag.
	OpTag Operation = "tag"
	// OpManifest reads a manifest or index by its digest.
	OpManifest Operation = "manifest"
	// OpBlob reads a blob.
	OpBlob Operation = "blob"
)

// Operations are all of them.
var Operations = []Operation{OpReferrers, OpTag, OpManifest, OpBlob}

// OnRequest has f told of every attempt at a request: what it was for and the HTTP
// status that came, 0 where none came. f must be quick and safe for concurrent
// use. OnRequest must be called before the first request; nil tells no one.
func (r *Repository) OnRequest(f func(op Operation, code int)) { r.onRequest = f }

func (r *Repository) observe(u *url.URL, resp *http.Response) {
	if r.onRequest == nil {
		return
	}
	code := 0
	if resp != nil {
		code = resp.StatusCode
	}
	r.onRequest(operation(u), code)
}

// operation tells by the endpoint (OCI distribution-spec, "Endpoints"). What has
// none of the others is a page of a listing: registries link them as they like.
func operation(u *url.URL) Operation {
	dir, reference := path.Split(u.Path)
	switch path.Base(dir) {
	case "blobs":
		return OpBlob
	case "manifests":
		if strings.Contains(reference, ":") {
			return OpManifest
		}
		return OpTag
	}
	return OpReferrers
}
