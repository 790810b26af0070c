package remote

import (
	"net"
	"net/http"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// refused returns an address that refuses connections: its port was free a
// moment ago.
func refused(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// TestWhoIsDown has failures of those around a registry, which it is not blamed
// for, and its own.
func TestWhoIsDown(t *testing.T) {
	hang := hostile.Answer{Hang: true}
	other := func(t *testing.T) *hostile.Server {
		t.Helper()
		s := hostile.New(t)
		s.On("/x", hang)
		return s
	}
	for _, tc := range []struct {
		name   string
		script func(t *testing.T, s *hostile.Server) // of /a
		down   bool
	}{
		{"storage that refuses connections", func(t *testing.T, s *hostile.Server) { s.On("/a", redirect("http://"+refused(t)+"/x")) }, false},
		{"storage that hangs", func(t *testing.T, s *hostile.Server) { s.On("/a", redirect(other(t).URL()+"/x")) }, false},
		{"storage of no known name", func(_ *testing.T, s *hostile.Server) { s.On("/a", redirect("http://nowhere.test/x")) }, false},
		{"storage that hangs after a redirect of its own", func(t *testing.T, s *hostile.Server) {
			storage := other(t)
			storage.On("/y", redirect("/x"))
			s.On("/a", redirect(storage.URL()+"/y"))
		}, false},
		{"token service that refuses connections", func(t *testing.T, s *hostile.Server) {
			s.On("/a", challenge("http://"+refused(t)+"/x", ""))
		}, false},
		{"token service that hangs", func(t *testing.T, s *hostile.Server) { s.On("/a", challenge(other(t).URL()+"/x", "")) }, false},
		{"registry that hangs", func(_ *testing.T, s *hostile.Server) { s.On("/a", hang) }, true},
		{"registry that hangs where it redirects to itself", func(_ *testing.T, s *hostile.Server) {
			s.On("/a", redirect("/x"))
			s.On("/x", hang)
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			tc.script(t, s)
			s.On("/b", hostile.Answer{})
			limits := quick
			limits.Request = short
			host := guarded(s)
			unknownNames(&host)
			r := newRepository(t, s.Host(), limits, host)
			_, err := fetch(t, r, "/a")
			if err == nil {
				t.Fatal("no error")
			}
			if down := r.Hosts(pull)[0].Down(); tc.down != (down != nil) {
				t.Errorf("after %v: down is %v", err, down)
			}
			if tc.down {
				return
			}
			// What is not down is asked again.
			r.limits = quick
			s.On("/a", hostile.Answer{})
			if _, err := fetch(t, newRepository(t, s.Host(), quick, s.RegistryHost(pull)), "/b"); err != nil {
				t.Fatalf("the test's own request: %v", err)
			}
			before := len(s.Requests())
			_, _ = fetch(t, r, "/b")                                      // may lack its token
			if asked := len(s.Requests()) - before; asked == 0 && !isToken(tc.name) {
				t.Error("the registry was not asked again")
			}
		})
	}

	t.Run("registry that refuses connections", func(t *testing.T) {
		address := refused(t)
		host := docker.RegistryHost{Client: &http.Client{Transport: &http.Transport{}}, Scheme: "http", Host: address, Path: "/v2", Capabilities: pull}
		r := newRepository(t, address, quick, host)
		if _, err := fetch(t, r, "/a"); err == nil || r.Hosts(pull)[0].Down() == nil {
			t.Errorf("%v, want a host that is down", err)
		}
	})
}
