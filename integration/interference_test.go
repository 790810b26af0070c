package integration

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// interference is an answer that a registry gives to requests for referrers alone.
type interference func(w http.ResponseWriter, q *http.Request, reg *registry.Registry, done <-chan struct{})

// status answers with a code and header fields.
func status(code int, header ...string) interference {
	return func(w http.ResponseWriter, _ *http.Request, _ *registry.Registry, _ <-chan struct{}) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// challenged answers 401 with a challenge; URL stands for the registry.
func challenged(challenge string) interference {
	return func(w http.ResponseWriter, _ *http.Request, reg *registry.Registry, _ <-chan struct{}) {
		w.Header().Set("WWW-Authenticate", strings.ReplaceAll(challenge, "URL", reg.URL()))
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// interferences are all ways of answering, by name.
func interferences() map[string]interference {
	all := map[string]interference{
		"a token service that refuses":             challenged(`Bearer realm="URL/refuses",service="other"`),
		"a token service that hangs":               challenged(`Bearer realm="URL/hangs",service="other"`),
		"a token service without an answer":        challenged(`Bearer realm="http://127.0.0.1:1/token"`),
		"a token service at a metadata address":    challenged(`Bearer realm="http://169.254.169.254/token"`),
		"a wider scope":                            challenged(`Bearer realm="URL/token",service="test",scope="registry:catalog:*"`),
		"a narrower scope":                         challenged(`Bearer realm="URL/token",service="test",scope="repository:app:metadata_read",error="insufficient_scope"`),
		"the token is invalid":                     challenged(`Bearer realm="URL/token",service="test",scope="repository:app:pull",error="invalid_token"`),
		"the token is invalid, at another service": challenged(`Bearer realm="URL/refuses",service="test",error="invalid_token"`),
		"basic authorization":                      challenged(`Basic realm="r"`),
		"a scheme that nobody knows":               challenged(`Negotiate`),
		"a challenge that cannot be read":          challenged(`Bearer realm="http://[`),
		"a redirect to itself":                     status(http.StatusTemporaryRedirect, "Location", "?again"),
		"a redirect to nobody":                     status(http.StatusTemporaryRedirect, "Location", "http://127.0.0.1:1/"),
		"a redirect to a metadata address":         status(http.StatusTemporaryRedirect, "Location", "http://169.254.169.254/"),
		"a redirect to nowhere":                    status(http.StatusTemporaryRedirect, "Location", "http://["),
		"cookies":                                  status(http.StatusOK, "Set-Cookie", "session=evil; Path=/", "Content-Type", "text/html"),
		"too many requests":                        status(http.StatusTooManyRequests, "Retry-After", "3600"),
		"unavailable for an hour":                  status(http.StatusServiceUnavailable, "Retry-After", "3600"),
		"the connection is closed": func(w http.ResponseWriter, _ *http.Request, _ *registry.Registry, _ <-chan struct{}) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		},
		"no answer": func(_ http.ResponseWriter, q *http.Request, _ *registry.Registry, done <-chan struct{}) {
			select {
			case <-done:
			case <-q.Context().Done():
			}
		},
		"an answer, and the connection hangs": func(w http.ResponseWriter, q *http.Request, _ *registry.Registry, done <-chan struct{}) {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-done:
			case <-q.Context().Done():
			}
		},
		"a body that does not end": func(w http.ResponseWriter, q *http.Request, _ *registry.Registry, done <-chan struct{}) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			for q.Context().Err() == nil {
				select {
				case <-done:
					return
				default:
					if _, err := w.Write(make([]byte, 1<<16)); err != nil {
						return
					}
				}
			}
		},
	}
	for _, code := range []int{204, 206, 300, 304, 400, 402, 403, 404, 405, 406, 408, 410, 418, 451, 500, 501, 502, 504, 505, 599} {
		all[fmt.Sprint("code ", code)] = status(code)
	}
	return all
}

// Whatever a registry answers to requests for referrers alone, the image's own pull has the
// result, and makes the requests, that it has and makes where the answers are honest: its first pull,
// the next of the same image, and that of another image of the registry.
func TestAnswersForReferrersDoNotInterfere(t *testing.T) {
	d := startDaemon(t, active(`timeout = "300ms"`+everything))
	honest := ownRequests(t, d.Ctr, "honest", nil)
	all := interferences()
	t.Run("dishonest", func(t *testing.T) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				got := ownRequests(t, d.Ctr, name, all[name])
				for i, pull := range []string{"the first pull", "the pull of another image", "the pull of the same image"} {
					if !slices.Equal(got[i], honest[i]) {
						t.Errorf("%s: the image's requests are\n%q, want\n%q", pull, got[i], honest[i])
					}
				}
			})
		}
	})
	wantClean(t, d)
}

// ownRequests pulls from a registry of its own, which answers requests for referrers as told,
// and returns the image's own requests of each pull, in order.
func ownRequests(t *testing.T, ctr func(context.Context, ...string) (string, error), name string, answer interference) [3][]string {
	t.Helper()
	reg := startRegistry(t, registry.Olareg, registry.WithToken("user", "secret"))
	images := map[string]small{}
	names := map[string]string{"v1": "TAG"}
	for _, repository := range []string{"app", "other"} {
		image := pushSmall(t, reg, repository, "v1", repository+name)
		attach(t, reg, repository, image.Descriptor, "application/vnd.cncf.notary.signature", []byte("signature of "+name))
		images[repository] = image
		for i, part := range []string{"MANIFEST", "CONFIG", "LAYER"} {
			names[image.content[i].String()] = part
		}
	}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) }) // before the registry waits for its requests
	own := func(path string) bool {
		return names[path[strings.LastIndexByte(path, '/')+1:]] != "" && !strings.Contains(path, "/referrers/")
	}
	reg.Fail(func(w http.ResponseWriter, q *http.Request) bool {
		switch {
		case q.URL.Path == "/refuses":
			w.WriteHeader(http.StatusForbidden)
		case q.URL.Path == "/hangs":
			select {
			case <-done:
			case <-q.Context().Done():
			}
		case answer == nil || own(q.URL.Path) || !strings.HasPrefix(q.URL.Path, "/v2/"):
			return false
		default:
			answer(w, q, reg, done)
		}
		return true
	})
	var out [3][]string
	for i, repository := range []string{"app", "other", "app"} {
		reg.Reset()
		image := reg.Host + "/" + repository + ":v1"
		if said, err := ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", "--plain-http", "-u", "user:secret", image); err != nil {
			t.Errorf("the pull of %s fails: %v\n%s", image, err, said)
		}
		for _, q := range reg.Requests() {
			path, _, _ := strings.Cut(q.Path, "?")
			if own(path) {
				out[i] = append(out[i], fmt.Sprintf("%s %s %d", q.Method, names[path[strings.LastIndexByte(path, '/')+1:]], q.Code))
			}
		}
		slices.Sort(out[i])
	}
	return out
}
