package registry

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// TestOrder has the registry behind its mirrors, with the capability "referrers"
// that containerd gives it by default. Each mirror is named by one letter, the
// registry R.
func TestOrder(t *testing.T) {
	const pullResolveReferrers = pullResolve | docker.HostCapabilityReferrers
	for _, tc := range []struct {
		name    string
		mirrors []docker.HostCapabilities // a, b, …
		first   bool                      // the registry stands before its mirrors
		lists   string                    // who has referrers; the others answer with none
		asked   string                    // in order
	}{
		{"no mirror", nil, false, "R", "R"},
		{"a mirror lists", []docker.HostCapabilities{pullResolve}, false, "aR", "a"},
		{"a mirror that may only pull lists", []docker.HostCapabilities{pull}, false, "aR", "a"},
		{"a mirror that declares referrers lists", []docker.HostCapabilities{pullReferrers}, false, "aR", "a"},
		{"a mirror with all capabilities lists", []docker.HostCapabilities{byDefault}, false, "aR", "a"},
		{"the mirror has none", []docker.HostCapabilities{pullResolve}, false, "R", "aR"},
		{"nobody has any", []docker.HostCapabilities{pullResolve, pullResolve}, false, "", "abR"},
		{"the one that declares referrers is asked first", []docker.HostCapabilities{pullResolve, pullResolveReferrers}, false, "abR", "b"},
		{"those that declare referrers are asked first, in their order", []docker.HostCapabilities{pullResolve, byDefault, pull, pullReferrers}, false, "", "bdacR"},
		{"the second of those lists", []docker.HostCapabilities{pullResolve, pullReferrers, pullReferrers}, false, "cR", "bc"},
		{"the last mirror lists", []docker.HostCapabilities{pullResolve, pullReferrers, pull}, false, "cR", "bac"},
		{"who may neither pull nor list is not asked", []docker.HostCapabilities{docker.HostCapabilityPush, pull}, false, "aR", "bR"},
		{"who may list alone is asked", []docker.HostCapabilities{pull, docker.HostCapabilityReferrers}, false, "b", "b"},
		{"the registry stands first, a mirror lists", []docker.HostCapabilities{pullResolve}, true, "aR", "a"},
		{"the registry stands first, the mirror has none", []docker.HostCapabilities{pullReferrers}, true, "R", "aR"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			servers := map[string]*hostile.Server{}
			var hosts []docker.RegistryHost
			start := func(name string, capabilities docker.HostCapabilities) {
				s := hostile.New(t)
				s.On(api, hostile.Index())
				if strings.Contains(tc.lists, name) {
					s.On(api, hostile.Index(entry(1)))
				}
				servers[name] = s
				hosts = append(hosts, s.RegistryHost(capabilities))
			}
			if tc.first {
				start("R", byDefault)
			}
			for i, capabilities := range tc.mirrors {
				start(string(rune('a'+i)), capabilities)
			}
			if !tc.first {
				start("R", byDefault)
			}
			want := labels.Absent
			if strings.Contains(tc.lists, tc.asked[len(tc.asked)-1:]) {
				want = labels.Present
			}
			l, err := repositoryAt(t, servers["R"].Host(), twice, hosts...).List(t.Context(), subject)
			if err != nil || l.Status != want {
				t.Errorf("%s, %v, want %s", l.Status, err, want)
			}
			type request struct {
				name string
				hostile.Request
			}
			var requests []request
			for name, s := range servers {
				for _, r := range s.Requests() {
					requests = append(requests, request{name, r})
				}
			}
			slices.SortFunc(requests, func(a, b request) int { return a.Time.Compare(b.Time) })
			got := ""
			for _, r := range requests {
				got += r.name
			}
			if got != tc.asked {
				t.Errorf("asked %q, want %q", got, tc.asked)
			}
		})
	}
}

// TestDockerHubIsNoMirror has Docker Hub's host, which goes by another name than
// its references do.
func TestDockerHubIsNoMirror(t *testing.T) {
	hub, mirror := hostile.New(t), hostile.New(t)
	hub.On(api, hostile.Index(entry(2)))
	mirror.On(api, hostile.Index(entry(1)))
	host := hub.RegistryHost(byDefault)
	host.Host = "registry-1.docker.io"
	host.Client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, hub.Host())
	}
	r := repositoryAt(t, "docker.io", twice, host, mirror.RegistryHost(pullResolve))
	l, err := r.List(t.Context(), subject)
	if err != nil || l.Status != labels.Present || len(hub.Requests()) > 0 {
		t.Errorf("%s, %v, %d requests to Docker Hub, want the mirror's listing alone", l.Status, err, len(hub.Requests()))
	}
	checkDigests(t, l.Referrers, entries(1, 1))

	mirror.On(api, hostile.Index())
	l, err = r.List(t.Context(), subject)
	if err != nil || l.Status != labels.Present {
		t.Errorf("%s, %v, want Docker Hub's after the mirror's none", l.Status, err)
	}
	checkDigests(t, l.Referrers, entries(2, 2))
	checkQueries(t, hub, "")
}
