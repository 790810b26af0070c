package registry

import (
	"container/list"
	"context"
	"net/http"
	"net/url"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

const (
	// maxAnswers is how many answers a daemon remembers, and maxAnswerBytes how many bytes
	// of bodies and headers they hold. The least recently used goes first.
	maxAnswers     = 1024
	maxAnswerBytes = 4 << 20
	// maxAnswer is how long one of them may be: what is larger is read anew.
	maxAnswer = 256 << 10
)

// AnswerCache remembers what registries answered about listings and tags, so that a pull
// again is told that nothing changed rather than all of it. It answers no question by
// itself: each is put to the registry with the client's own credentials, and what is
// remembered is used where the registry says that it still holds (304), or names its digest.
// So a client gets nothing that the registry would not give it. Its zero value is ready, and
// it is safe for concurrent use.
type AnswerCache struct {
	mu     sync.Mutex
	byKey  map[string]*list.Element
	recent list.List // of *cachedAnswer, the last used first
	bytes  int
}

// cachedAnswer is one 200. It is not changed any more.
type cachedAnswer struct {
	key    string // of the host's session and the address
	url    string
	etag   string
	digest digest.Digest // of body
	header http.Header
	body   []byte
}

func (a *cachedAnswer) size() int { return len(a.key) + len(a.url) + len(a.body) + 512 }

// keptHeaders are the headers that an answer is read by.
var keptHeaders = []string{"Content-Type", "Link", "OCI-Filters-Applied"}

// SetAnswers has the repository ask for what c remembers with conditions; nil asks for all
// of it. It must be called before the first request.
func (r *Repository) SetAnswers(c *AnswerCache) { r.answers = c }

// SetKnown has the repository ask for tags with HEAD first, since known may have what they
// point at: the bytes of a manifest by its digest, nil where it has none. Docker Hub counts
// GETs of tags against its limit of pulls, and HEADs not. SetKnown must be called before the
// first request; known is called from several goroutines.
func (r *Repository) SetKnown(known func(context.Context, digest.Digest) []byte) { r.known = known }

func (c *AnswerCache) get(key string) *cachedAnswer {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cachedAnswer)
}

// put remembers an answer that is of use later, of the address under the key (Host.remembered).
// One that came by a redirect is not kept: what it says of itself is another host's.
func (c *AnswerCache) put(key string, u *url.URL, a *Response) {
	if c == nil || a == nil || a.Code != http.StatusOK || len(a.Body) > maxAnswer || a.URL.String() != u.String() {
		return
	}
	kept := &cachedAnswer{key: key, url: u.String(), etag: a.Header.Get("ETag"), header: http.Header{}, body: a.Body}
	if operation(u) == OpTag {
		kept.digest = ownDigest(a)
	}
	if kept.etag == "" && kept.digest == "" || len(kept.etag) > artifact.MaxTelling {
		return
	}
	for _, key := range keptHeaders {
		if values := a.Header.Values(key); len(values) > 0 {
			kept.header[key] = values
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil {
		c.byKey = map[string]*list.Element{}
	}
	if e := c.byKey[key]; e != nil {
		c.remove(e)
	}
	c.byKey[key] = c.recent.PushFront(kept)
	c.bytes += kept.size()
	for len(c.byKey) > maxAnswers || c.bytes > maxAnswerBytes {
		c.remove(c.recent.Back())
	}
}

func (c *AnswerCache) remove(e *list.Element) {
	a := c.recent.Remove(e).(*cachedAnswer)
	delete(c.byKey, a.key)
	c.bytes -= a.size()
}

// ownDigest returns the digest that an answer gives itself, where its body has it.
func ownDigest(a *Response) digest.Digest {
	dgst := digest.Digest(a.Header.Get("Docker-Content-Digest"))
	if dgst.Validate() != nil || artifact.VerifyDigest(a.Body, dgst) != nil {
		return ""
	}
	return dgst
}

// dockerHub counts GETs of tags against its limit of pulls, though nothing be there, and
// HEADs not. Few images have anything under a tag that is asked for, so that one costs a
// request more.
const dockerHub = "registry-1.docker.io"

// head asks for a tag with HEAD. It returns the answer that a GET would give: that nothing is
// there, that it is refused, or what is known of the digest that the tag has. nil leaves it to
// a GET: the registry does not know HEAD, or what is there is not known.
func (r *Repository) head(ctx context.Context, h *Host, q request) (*Response, error) {
	q.method = http.MethodHead
	var a *Response
	err := r.perform(ctx, h, q, func(resp *http.Response) error {
		a = &Response{URL: resp.Request.URL, Code: resp.StatusCode, Header: resp.Header}
		return nil
	})
	switch {
	case err != nil:
		return a, err
	case a.Code == http.StatusNotFound, a.Code != http.StatusOK && !lacksEndpoint(a.Code):
		return a, nil
	case a.Code != http.StatusOK:
		return nil, nil
	}
	dgst := digest.Digest(a.Header.Get("Docker-Content-Digest"))
	if dgst.Validate() != nil {
		return nil, nil
	}
	if kept := r.answers.get(h.remembered(q.url)); kept != nil && kept.digest == dgst {
		a.Body = kept.body
		return a, nil
	}
	if r.known == nil {
		return nil, nil
	}
	if a.Body = r.known(ctx, dgst); a.Body == nil || artifact.VerifyDigest(a.Body, dgst) != nil {
		return nil, nil
	}
	return a, nil
}

// unchanged returns what was remembered where the registry says that it still holds.
func (a *cachedAnswer) unchanged(resp *http.Response) *Response {
	if a == nil || resp.StatusCode != http.StatusNotModified || resp.Request.URL.String() != a.url {
		return nil
	}
	return &Response{URL: resp.Request.URL, Code: http.StatusOK, Header: a.header.Clone(), Body: a.body}
}
