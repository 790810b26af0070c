package integration

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
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
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(http.ErrAbortHandler) // HTTP/2: the stream is reset
			}
			_ = conn.Close()
		},
		"the connection is to be closed":                     status(http.StatusNotFound, "Connection", "close"), // HTTP/2: GOAWAY
		"a challenge behind a redirect":                      status(http.StatusTemporaryRedirect, "Location", "/behind/a/redirect"),
		"a challenge behind a redirect, at another host":     elsewhere("/behind/a/redirect"),
		"a challenge behind a redirect to the image's paths": status(http.StatusTemporaryRedirect, "Location", "/v2/app/manifests/behind"),
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

// elsewhere redirects to a path of the registry by another of its names.
func elsewhere(path string) interference {
	return func(w http.ResponseWriter, _ *http.Request, reg *registry.Registry, _ <-chan struct{}) {
		w.Header().Set("Location", strings.Replace(reg.URL(), "127.0.0.1", "localhost", 1)+path)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// document answers with a body.
func document(body string) interference {
	return func(w http.ResponseWriter, _ *http.Request, _ *registry.Registry, _ <-chan struct{}) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
}

// interfering is a registry that answers requests of ours, or requests for our tokens, in its own way.
type interfering struct {
	name   string
	answer interference // to requests for referrers; nil is honest
	token  interference // to requests for tokens of oursScope; nil is honest
	revoke bool         // all tokens, at the first request for referrers
}

// oursScope is in the challenge that requests for referrers alone get where their tokens interfere.
const oursScope = "repository:app:pull,metadata_read"

// interferingTokens are the answers of a token service to requests of ours, which ask the service that the image
// asks.
func interferingTokens() []interfering {
	all := map[string]interference{
		"a page":                   document("<html>"),
		"no token":                 document("{}"),
		"an empty token":           document(`{"token":"","access_token":""}`),
		"a token of two lines":     document(`{"token":"a\r\nX-Evil: b"}`),
		"a token that runs out":    document(`{"token":"t","expires_in":1}`),
		"a token that has run out": document(`{"token":"t","expires_in":60,"issued_at":"2001-01-01T00:00:00Z"}`),
		"a token of other types":   document(`{"token":1,"expires_in":"soon"}`),
		"a token that is refused":  document(`{"token":"t","access_token":"u","refresh_token":"v","expires_in":300}`),
	}
	for name, answer := range interferences() {
		if !strings.Contains(name, "token service") && !strings.Contains(name, "challenge") && !strings.HasPrefix(name, "code") {
			all[name] = answer
		}
	}
	for _, code := range []int{204, 400, 401, 404, 500} {
		all[fmt.Sprint("code ", code)] = status(code)
	}
	challenge := challenged(`Bearer realm="URL/token",service="test",scope="` + oursScope + `"`)
	var out []interfering
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, interfering{name: "token: " + name, answer: challenge, token: all[name]})
	}
	return out
}

// interferers are all that interfere; without codes and documents where the protocol makes no difference to them.
func interferers(whole bool) []interfering {
	out := []interfering{{name: "the tokens run out half way", revoke: true}}
	all := interferences()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if whole || !strings.HasPrefix(name, "code") {
			out = append(out, interfering{name: name, answer: all[name]})
		}
	}
	for _, tc := range interferingTokens() {
		if whole || all[strings.TrimPrefix(tc.name, "token: ")] != nil && !strings.Contains(tc.name, "code") {
			out = append(out, tc)
		}
	}
	return out
}

// Whatever a registry answers to requests for referrers alone, and to requests for their tokens, the image's own
// pull has the result, and makes the requests, that it has and makes where the answers are honest: its first pull,
// the next of the same image, and that of another image of the registry.
func TestAnswersForReferrersDoNotInterfere(t *testing.T) {
	d := startDaemon(t, active(`timeout = "200ms"`+everything))
	for protocol, opts := range map[string][]registry.Option{
		"HTTP 1.1": nil,
		"HTTP 2":   {registry.WithTLS(), registry.WithHTTP2()},
	} {
		honest := ownRequests(t, d.Ctr, interfering{name: "honest"}, protocol, opts)
		t.Run(protocol, func(t *testing.T) {
			for _, tc := range interferers(opts == nil) {
				t.Run(tc.name, func(t *testing.T) {
					t.Parallel()
					got := ownRequests(t, d.Ctr, tc, protocol, opts)
					for i, pull := range []string{"the first pull", "the pull of another image", "the pull of the same image"} {
						want := honest[i]
						if tc.revoke {
							want = answered(want)
							got[i] = answered(got[i])
						}
						if !slices.Equal(got[i], want) {
							t.Errorf("%s: the image's requests are\n%q, want\n%q", pull, got[i], want)
						}
					}
				})
			}
		})
	}
	wantClean(t, d)
}

// answered are the requests that were not refused for their token.
func answered(requests []string) []string {
	return slices.DeleteFunc(slices.Clone(requests), func(r string) bool { return strings.HasSuffix(r, " 401") })
}

// ownRequests pulls from a registry of its own, which answers requests for referrers as told,
// and returns the image's own requests of each pull, in order. The daemon has none of its content.
func ownRequests(t *testing.T, ctr func(context.Context, ...string) (string, error), tc interfering, protocol string, opts []registry.Option) [3][]string {
	t.Helper()
	reg := startRegistry(t, registry.Olareg, append(opts, registry.WithToken("user", "secret"))...)
	names := map[string]string{"v1": "TAG"}
	for _, repository := range []string{"app", "other"} {
		image := pushSmall(t, reg, repository, "v1", repository+protocol+tc.name)
		attach(t, reg, repository, image.Descriptor, "application/vnd.cncf.notary.signature", []byte("signature of "+protocol+tc.name))
		for i, part := range []string{"MANIFEST", "CONFIG", "LAYER"} {
			names[image.content[i].String()] = part
		}
	}
	own := func(path string) bool {
		return names[path[strings.LastIndexByte(path, '/')+1:]] != "" && !strings.Contains(path, "/referrers/")
	}
	asked := tc.interfere(t, reg, own)
	flags := []string{"images", "pull", "--platform", "linux/amd64", "-u", "user:secret", "--plain-http"}
	if opts != nil {
		flags = append(flags[:len(flags)-1], "--hosts-dir", trusted(t, reg))
	}
	var out [3][]string
	for i, repository := range []string{"app", "other", "app"} {
		reg.Reset()
		image := reg.Host + "/" + repository + ":v1"
		if said, err := ctr(testContext(t), append(slices.Clone(flags), image)...); err != nil {
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
	if tc.answer != nil && asked.answers.Load() == 0 || tc.token != nil && asked.tokens.Load() == 0 {
		t.Errorf("the registry answered %d requests for referrers and %d for their tokens", asked.answers.Load(), asked.tokens.Load())
	}
	return out
}

// interfered counts what was answered in another way than honestly.
type interfered struct{ answers, tokens atomic.Int32 }

// interfere has the registry interfere with all requests that are not the image's own.
func (tc interfering) interfere(t *testing.T, reg *registry.Registry, own func(path string) bool) *interfered {
	done := make(chan struct{})
	t.Cleanup(func() { close(done) }) // before the registry waits for its requests
	asked := &interfered{}
	behind := challenged(`Bearer realm="URL/refuses",service="behind"`)
	revoke := reg.RevokeOnce("/referrers/")
	reg.Fail(func(w http.ResponseWriter, q *http.Request) bool {
		path := q.URL.Path
		switch {
		case path == "/refuses":
			w.WriteHeader(http.StatusForbidden)
		case path == "/hangs":
			select {
			case <-done:
			case <-q.Context().Done():
			}
		case strings.Contains(path, "/behind"):
			behind(w, q, reg, done)
		case path == "/token" && tc.token != nil && strings.Contains(q.FormValue("scope"), "metadata_read"):
			asked.tokens.Add(1)
			tc.token(w, q, reg, done)
		case tc.revoke:
			return revoke(w, q)
		case tc.answer == nil || own(path) || !strings.HasPrefix(path, "/v2/"):
			return false
		default:
			asked.answers.Add(1)
			tc.answer(w, q, reg, done)
		}
		return true
	})
	return asked
}
