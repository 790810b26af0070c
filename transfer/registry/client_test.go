package registry

import (
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// A client's image and its referrers have the same hosts, and a client without the daemon's
// sessions leaves nothing behind.
func TestClientGivesTheSameHosts(t *testing.T) {
	s := tokenServer(t)
	asked := 0
	c := NewClient(t.Context(), plain(func(string) (string, string, error) {
		asked++
		return user("a")("")
	}))
	ref := s.Host() + "/test/app:v1"
	if known, _ := c.Known(ref); known {
		t.Error("a registry is remembered that nobody asked")
	}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: c.Hosts})
	if _, _, err := resolver.Resolve(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	c.Settled()
	if known, multiplexed := c.Known(ref); !known || multiplexed {
		t.Errorf("the registry is remembered: %t, over HTTP/2: %t, want it to be, over HTTP/1.1", known, multiplexed)
	}
	r, err := c.Repository(ref, nil, twice)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := r.List(t.Context(), subject); err != nil || len(l.Answers) == 0 || l.Answers[0].Code == 401 {
		t.Errorf("%+v, %v, want the listing with the image's token", l.Answers, err)
	}
	if asked != 1 {
		t.Errorf("the client was asked for its credentials %d times, want once", asked)
	}
	c.Close()
	if n := len(c.own.known); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	for _, ref := range []string{"", "no host"} {
		if _, err := c.Repository(ref, nil, twice); err == nil {
			t.Errorf("%q is a reference", ref)
		}
	}
}
