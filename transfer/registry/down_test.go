package registry

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// refusing is an address that refuses connections: that of a service that
// nobody runs. A port that was free a moment ago may be another test's by now.
const refusing = "127.0.0.1:1"

// dialNumbers knows no name, and asks no resolver about one.
func dialNumbers(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// What waits for a host that turns out to be down is given up with it: one deadline is
// waited for, not one after the other.
func TestRequestsAtAHostThatIsDownEndTogether(t *testing.T) {
	s := hostile.New(t)
	s.On("/a", hostile.Answer{Hang: true})
	s.On("/b", hostile.Answer{Hang: true})
	limits := quick
	limits.Request = time.Second
	r := newRepository(t, s.Host(), limits, s.RegistryHost(pullResolve))
	first := make(chan error, 1)
	go func() {
		_, err := fetch(t, r, "/a")
		first <- err
	}()
	time.Sleep(limits.Request / 2) // the second has half of its time left when the first has none
	_, err := fetch(t, r, "/b")
	if err == nil || !strings.Contains(err.Error(), "host "+s.Host()+" is unreachable") {
		t.Errorf("%v, want that it was given up with its host", err)
	}
	if err := <-first; err == nil || !strings.Contains(err.Error(), "no headers within") {
		t.Errorf("%v, want that it took too long", err)
	}
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
		{"storage that refuses connections", func(_ *testing.T, s *hostile.Server) { s.On("/a", redirect("http://"+refusing+"/x")) }, false},
		{"storage that hangs", func(t *testing.T, s *hostile.Server) { s.On("/a", redirect(other(t).URL()+"/x")) }, false},
		{"storage of no known name", func(_ *testing.T, s *hostile.Server) { s.On("/a", redirect("http://nowhere.test/x")) }, false},
		{"storage that hangs after a redirect of its own", func(t *testing.T, s *hostile.Server) {
			storage := other(t)
			storage.On("/y", redirect("/x"))
			s.On("/a", redirect(storage.URL()+"/y"))
		}, false},
		{"token service that refuses connections", func(_ *testing.T, s *hostile.Server) {
			s.On("/a", challenging("http://"+refusing+"/x", ""))
		}, false},
		{"token service that hangs", func(t *testing.T, s *hostile.Server) { s.On("/a", challenging(other(t).URL()+"/x", "")) }, false},
		{"registry that hangs", func(_ *testing.T, s *hostile.Server) { s.On("/a", hang) }, true},
		{"registry that hangs where it redirects to itself", func(_ *testing.T, s *hostile.Server) {
			s.On("/a", redirect("/x"))
			s.On("/x", hang)
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			tc.script(t, s)
			limits := quick
			if strings.Contains(tc.name, "hangs") {
				limits.Request = time.Second // time for those beside it to answer
			}
			host := guarded(s)
			host.Client.Transport.(*http.Transport).DialContext = dialNumbers
			r := newRepository(t, s.Host(), limits, host)
			_, err := fetch(t, r, "/a")
			if err == nil {
				t.Fatal("no error")
			}
			if down := r.Hosts(pull)[0].Down(); tc.down != (down != nil) {
				t.Errorf("after %v: down is %v", err, down)
			}
		})
	}

	t.Run("registry that refuses connections", func(t *testing.T) {
		host := docker.RegistryHost{Client: &http.Client{Transport: &http.Transport{}}, Scheme: "http", Host: refusing, Path: "/v2", Capabilities: pull}
		r := newRepository(t, refusing, quick, host)
		if _, err := fetch(t, r, "/a"); err == nil || r.Hosts(pull)[0].Down() == nil {
			t.Errorf("%v, want a host that is down", err)
		}
	})
}
