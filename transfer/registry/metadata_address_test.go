package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// TestRedirectsToMetadataServices has the spellings of addresses at which clouds
// hand credentials to whoever asks.
func TestRedirectsToMetadataServices(t *testing.T) {
	for _, host := range []string{
		"169.254.169.254",
		"169.254.169.254:80",
		"169.254.169.254.",
		"169.254.170.2", // of Amazon's containers
		"[::ffff:169.254.169.254]",
		"[::ffff:a9fe:a9fe]",
		"[fe80::1]",
		"[fe80::1%25eth0]",
		"[fe80::1%25eth0]:80",
		"[fd00:ec2::254]",
		"[FD00:0EC2:0::254]",
		"[fd00:ec2::254]:80",
		"100.100.100.200",
		"100.100.100.200.",
		"2852039166",
		"2852039166.",
		"0xa9fea9fe",
		"0xA9FEA9FE",
		"0xa9.0xfe.0xa9.0xfe",
		"0251.0376.0251.0376",
		"169.254.43518",
	} {
		t.Run(host, func(t *testing.T) {
			s := hostile.New(t)
			s.On("/a", redirect("http://"+host+"/latest/meta-data/"))
			registry := s.RegistryHost(pullResolve)
			var astray atomic.Int32
			registry.Client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				if address != s.Host() { // never reach such a service, not from a test either
					astray.Add(1)
					return nil, errors.New("dialled " + address)
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}
			_, err := fetch(t, newRepository(t, s.Host(), quick, registry), "/a")
			if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "refused redirect") {
				t.Errorf("%v, want a refused redirect", err)
			}
			if astray.Load() > 0 {
				t.Error("it was dialled")
			}
		})
	}
}

func TestRedirectsToOrdinaryHostsAreFollowed(t *testing.T) {
	r := alone(t, hostile.New(t), quick)
	for _, host := range []string{
		"storage.test", "storage.test.", "localhost", "localhost:5000",
		"127.0.0.1", "127.0.0.1:5000", "[::1]", "[::1]:5000",
		"10.0.0.1", "192.168.1.1:5000", "100.100.100.201", "169.253.1.1", "[fd00:ec2::253]", "[2001:db8::1]",
		// Names that look like numbers, in part.
		"169.254.169.254.nip.test", "0x.test", "1.registry.test", "3rd.test", "cafe.de", "e2e.storage.test",
	} {
		first := httptest.NewRequest(http.MethodGet, "http://registry.test/a", nil)
		u, err := url.Parse("http://" + host + "/b")
		if err != nil {
			t.Fatal(err)
		}
		next := httptest.NewRequest(http.MethodGet, "http://registry.test/b", nil)
		next.URL = u
		if err := r.checkRedirect(next, []*http.Request{first}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}
