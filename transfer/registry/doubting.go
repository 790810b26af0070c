package registry

import (
	"net/http"
	"strings"
)

type lent struct{ host, value string }

func (a *Authorizer) lend(host, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lent == nil {
		a.lent = map[lent]bool{}
	}
	a.lent[lent{host, value}] = true
}

// doubts reports whether a request may have been refused for what is remembered, where
// containerd would have asked without and been challenged. What it was authorized with is
// then forgotten.
//
// A 401 says what the host wants, but of Basic it may be the client's password that is wrong
// where none is needed. A 404 may hide what the token does not reach; a mirror's is believed, since
// the next host is asked.
func (a *Authorizer) doubts(req *http.Request, code int) bool {
	host, value := req.URL.Host, req.Header.Get("Authorization")
	switch {
	case req.Body != nil && req.Body != http.NoBody:
		return false
	case isOurs(req.Context()):
		return code == http.StatusForbidden && a.doubtsForOurs(req, lent{host, value})
	case code == http.StatusForbidden || code == http.StatusBadRequest:
	case code == http.StatusUnauthorized && strings.HasPrefix(value, "Basic "):
	case code == http.StatusNotFound && host == a.session.hosts[len(a.session.hosts)-1].Host:
	default:
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.lent[lent{host, value}] {
		return false
	}
	if h := a.handlers[host]; h != nil && (h.remembered || h.borrowed) {
		a.handlers[host] = nil // until the host's next challenge
		a.session.forget(host)
	}
	return true
}

// doubtsForOurs is doubts for a request of ours. What the image's requests are authorized with
// stays as it is: the challenge that comes is answered beside them. A 403 is the registry's word
// of a tag that is not there, and where the host does not challenge one that asks without.
func (a *Authorizer) doubtsForOurs(req *http.Request, l lent) bool {
	if operation(req.URL) == OpTag {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lent[l] && !a.believed[l]
}

// believe notes that a request of ours was refused without the authorization as well, in
// another way than by a challenge.
func (a *Authorizer) believe(l lent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.believed == nil {
		a.believed = map[lent]bool{}
	}
	a.believed[l] = true
}

// doubting makes a request again, without authorization, that was refused for what is
// remembered.
type doubting struct {
	http.RoundTripper
	authorizer *Authorizer
}

// RoundTrip implements http.RoundTripper.
func (d doubting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(req)
	if err != nil || !d.authorizer.doubts(req, resp.StatusCode) {
		return resp, err
	}
	resp.Body.Close()
	without := req.Clone(req.Context())
	without.Header.Del("Authorization")
	if resp, err = d.RoundTripper.RoundTrip(without); err != nil {
		return nil, err
	}
	resp.Request = req // the next token is fetched after its own was refused
	if resp.StatusCode != http.StatusUnauthorized && isOurs(req.Context()) {
		d.authorizer.believe(lent{req.URL.Host, req.Header.Get("Authorization")})
	}
	return resp, nil
}

// CloseIdleConnections serves http.Client.CloseIdleConnections.
func (d doubting) CloseIdleConnections() {
	(&http.Client{Transport: d.RoundTripper}).CloseIdleConnections()
}
