package registry

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// tokenPath is where the front gives out tokens.
const tokenPath = "/token"

// authorized asks for what the options say, as registries do (distribution
// registry token authentication).
func (r *Registry) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case r.o.basic:
			user, password, _ := q.BasicAuth()
			if user != r.o.user || password != r.o.password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		case r.o.token && q.URL.Path == tokenPath:
			r.giveToken(w, q)
			return
		case r.o.token:
			token, _ := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
			r.mu.Lock()
			ok := r.tokens[token]
			r.mu.Unlock()
			if !ok {
				challenge := fmt.Sprintf(`Bearer realm="%s",service="test",scope="%s"`, r.realm(q), scope(q))
				if token != "" {
					challenge += `,error="invalid_token"`
				}
				w.Header().Set("WWW-Authenticate", challenge)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		next.ServeHTTP(w, q)
	})
}

// realm is the token service's address, on the host that the client knows: it may have
// come through a proxy.
func (r *Registry) realm(q *http.Request) string {
	scheme := "http"
	if r.o.tls {
		scheme = "https"
	}
	return scheme + "://" + q.Host + tokenPath
}

func scope(q *http.Request) string {
	path := strings.TrimPrefix(q.URL.Path, "/v2/")
	for _, part := range []string{"/manifests/", "/blobs/", "/referrers/"} {
		if name, _, ok := strings.Cut(path, part); ok {
			actions := "pull"
			if q.Method != http.MethodGet && q.Method != http.MethodHead {
				actions = "pull,push"
			}
			return "repository:" + name + ":" + actions
		}
	}
	return ""
}

func (r *Registry) giveToken(w http.ResponseWriter, q *http.Request) {
	user, password, ok := q.BasicAuth()
	if !ok { // OAuth2, which containerd tries first where it has a secret
		user, password = q.PostFormValue("username"), q.PostFormValue("password")
	}
	if user != r.o.user || password != r.o.password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	token := rand.Text()
	r.mu.Lock()
	r.tokens[token] = true
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
}

// RevokeTokens makes all tokens given out so far invalid.
func (r *Registry) RevokeTokens() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.tokens)
}

// RevokeOnce is a fault: the first request whose path has the substring finds
// all tokens revoked.
func (r *Registry) RevokeOnce(substring string) Fault {
	var once sync.Once
	return func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, substring) {
			once.Do(r.RevokeTokens)
		}
		return false
	}
}
