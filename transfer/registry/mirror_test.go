package registry

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// answers returns what was learnt, with the hosts' names in place of addresses.
func answers(l Listing, names map[string]string) []string {
	var out []string
	for _, a := range l.Answers {
		request, _, _ := strings.Cut(a.Request, " sha")
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s: %d %s", names[a.Host], request, a.Code, a.Status)))
	}
	return out
}

// TestMirror has a mirror that is asked before the registry.
func TestMirror(t *testing.T) {
	one, two := hostile.Index(entry(1)), hostile.Index(entry(2))
	for _, tc := range []struct {
		name         string
		capabilities docker.HostCapabilities // of the mirror; 0: pull and resolve
		mirror       func(*hostile.Server)
		upstream     func(*hostile.Server)
		status       labels.Status
		referrers    []ocispec.Descriptor
		answers      []string
	}{
		{"the mirror lists", 0, answering(one), answering(two),
			labels.Present, entries(1, 1), []string{"mirror referrers: 200 present"}},
		{"a mirror that declares nothing but pull is asked", pull, answering(one), answering(two),
			labels.Present, entries(1, 1), []string{"mirror referrers: 200 present"}},
		{"a mirror that declares referrers is asked", pullReferrers, answering(one), answering(two),
			labels.Present, entries(1, 1), []string{"mirror referrers: 200 present"}},
		{"404 and 404 do not hide the registry's", 0, missing(404), answering(two),
			labels.Present, entries(2, 2), []string{"mirror referrers: 404", "mirror tag: 404 absent", "registry referrers: 200 present"}},
		{"an empty listing does not hide the registry's", 0, answering(hostile.Index()), answering(two),
			labels.Present, entries(2, 2), []string{"mirror referrers: 200 absent", "registry referrers: 200 present"}},
		{"a failing mirror does not hide the registry's", 0, answering(hostile.Status(500)), answering(two),
			labels.Present, entries(2, 2), []string{"mirror referrers: 500 unknown", "registry referrers: 200 present"}},
		{"both have none", 0, missing(404), answering(hostile.Index()),
			labels.Absent, nil, []string{"mirror referrers: 404", "mirror tag: 404 absent", "registry referrers: 200 absent"}},
		{"a failing mirror, and the registry has none", 0, answering(hostile.Status(403)), missing(404),
			labels.Unknown, nil, []string{"mirror referrers: 403 unknown", "registry referrers: 404", "registry tag: 404 absent"}},
		{"the mirror has none, and the registry fails", 0, missing(404), answering(hostile.Status(403)),
			labels.Unknown, nil, []string{"mirror referrers: 404", "mirror tag: 404 absent", "registry referrers: 403 unknown"}},
		{"a mirror that may not resolve is not asked for the tag", pull, missing(404, one), missing(404, two),
			labels.Present, entries(2, 2), []string{"mirror referrers: 404", "mirror tag: 0", "registry referrers: 404", "registry tag: 200 present"}},
		{"that mirror cannot tell, and the registry fails", pull, missing(404, one), answering(hostile.Status(403)),
			labels.Unknown, nil, []string{"mirror referrers: 404", "mirror tag: 0", "registry referrers: 403 unknown"}},
		{"the mirror's second page fails", 0, answering(hostile.Index(entries(1, 2)...).With("Link", next("?page=2")), hostile.Status(403)), answering(hostile.Index(entries(2, 3)...)),
			labels.Present, entries(1, 3), []string{"mirror referrers, page 2: 403 unknown", "registry referrers: 200 present"}},
		{"a mirror whose answer is too large does not hide the registry's", 0, answering(hostile.Answer{Header: one.Header, Announce: artifact.MaxManifestSize + 1, Stall: true}), answering(two),
			labels.Present, entries(2, 2), []string{"mirror referrers: 200 unknown", "registry referrers: 200 present"}},
		{"an empty page that leads to itself does not hide the registry's", 0, answering(hostile.Index().With("Link", next("?"))), answering(two),
			labels.Present, entries(2, 2), []string{"mirror referrers: 200 unknown", "registry referrers: 200 present"}},
		{"a mirror that was cut before it listed anything, and the registry has none", 0, answering(hostile.Index().With("Link", next("?"))), answering(hostile.Index()),
			labels.Unknown, nil, []string{"mirror referrers: 200 unknown", "registry referrers: 200 absent"}},
		{"the mirror's list is too long", 0, answering(hostile.Index(entries(1, MaxEntries+1)...)), answering(two),
			labels.Truncated, entries(1, MaxEntries), []string{"mirror referrers: 200 truncated"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mirror, upstream := hostile.New(t), hostile.New(t)
			tc.mirror(mirror)
			tc.upstream(upstream)
			if tc.capabilities == 0 {
				tc.capabilities = pullResolve
			}
			r := repositoryAt(t, upstream.Host(), twice, mirror.RegistryHost(tc.capabilities), upstream.RegistryHost(byDefault))
			l, err := r.List(t.Context(), subject)
			if err != nil || l.Status != tc.status {
				t.Errorf("%s, %v, want %s", l.Status, err, tc.status)
			}
			checkDigests(t, l.Referrers, tc.referrers)
			names := map[string]string{mirror.Host(): "mirror", upstream.Host(): "registry"}
			if got := answers(l, names); !slices.Equal(got, tc.answers) {
				t.Errorf("answers %q, want %q", got, tc.answers)
			}
			if asked := len(upstream.Paths()) > 0; asked != strings.Contains(strings.Join(tc.answers, " "), "registry") {
				t.Errorf("the registry was asked for %q", upstream.Paths())
			}
			if !tc.capabilities.Has(docker.HostCapabilityResolve) && slices.Contains(mirror.Paths(), tag) {
				t.Error("the mirror was asked for the tag")
			}
		})
	}
}

func TestMirrorIsToldForWhomOnEveryRequest(t *testing.T) {
	mirror := hostile.New(t)
	path := "/proxy/hub/test/app/referrers/" + subject.String() // override_path
	mirror.On(path,
		hostile.Index(entry(1)).With("Link", next("?page=2")),
		hostile.Index(entry(2)).With("Link", next(path+"?page=3&ns=kept.test")),
		hostile.Index(entry(3)))
	host := mirror.RegistryHost(pullResolve)
	host.Path = "/proxy/hub"
	l, err := repositoryAt(t, "registry.test", twice, host).List(t.Context(), subject)
	if err != nil || l.Status != labels.Present {
		t.Fatalf("%s, %v, want present", l.Status, err)
	}
	checkDigests(t, l.Referrers, entries(1, 3))
	checkQueries(t, mirror, "ns=registry.test", "ns=registry.test&page=2", "ns=kept.test&page=3")

	mirror.On(path) // no longer there
	if _, err := repositoryAt(t, "registry.test", twice, host).List(t.Context(), subject); err != nil {
		t.Fatal(err)
	}
	checkQueries(t, mirror, "ns=registry.test", "ns=registry.test&page=2", "ns=kept.test&page=3", "ns=registry.test", "ns=registry.test")
}

func TestRegistryItselfIsNotToldForWhom(t *testing.T) {
	s := hostile.New(t)
	s.On(api, hostile.Index(entry(1)).With("Link", next("?page=2")), hostile.Index())
	if _, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).List(t.Context(), subject); err != nil {
		t.Fatal(err)
	}
	checkQueries(t, s, "", "page=2")
}

func checkQueries(t *testing.T, s *hostile.Server, want ...string) {
	t.Helper()
	var got []string
	for _, request := range s.Requests() {
		query, err := url.ParseQuery(request.Query)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, query.Encode()) // in alphabetical order
	}
	if !slices.Equal(got, want) {
		t.Errorf("queries %q, want %q", got, want)
	}
}

func TestMirrorsThatDeclareReferrersAreAskedFirst(t *testing.T) {
	var hosts []docker.RegistryHost
	names := map[string]string{}
	for name, capabilities := range []docker.HostCapabilities{pull, pullReferrers, docker.HostCapabilityPush, pull, pullReferrers} {
		s := hostile.New(t)
		s.On(api, hostile.Index())
		hosts = append(hosts, s.RegistryHost(capabilities))
		names[s.Host()] = fmt.Sprint(name)
	}
	l, err := repositoryAt(t, "registry.test", twice, hosts...).List(t.Context(), subject)
	if err != nil || l.Status != labels.Absent {
		t.Errorf("%s, %v, want absent", l.Status, err)
	}
	// The last is the server that the others stand in for, under another name.
	want := []string{"1 referrers: 200 absent", "0 referrers: 200 absent", "3 referrers: 200 absent", "4 referrers: 200 absent"}
	if got := answers(l, names); !slices.Equal(got, want) {
		t.Errorf("answers %q, want %q", got, want)
	}
}

// refusing returns a host that refuses connections: its port was free a moment
// ago.
func closedHost(t *testing.T) docker.RegistryHost {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return docker.RegistryHost{Client: &http.Client{Transport: &http.Transport{}}, Scheme: "http", Host: listener.Addr().String(), Path: "/v2", Capabilities: pullResolve}
}

func TestUnreachableIsUnknownNeverAbsent(t *testing.T) {
	empty := hostile.New(t)
	empty.On(api, hostile.Index())
	dead := closedHost(t)
	for name, r := range map[string]*Repository{
		"the mirror is empty, the registry cannot be reached": repositoryAt(t, dead.Host, twice, empty.RegistryHost(pullResolve), dead),
		"the mirror cannot be reached, the registry is empty": repositoryAt(t, empty.Host(), twice, dead, empty.RegistryHost(pullResolve)),
		"there is the registry alone":                         repositoryAt(t, dead.Host, twice, dead),
	} {
		for range 2 { // the second time it is known to be down
			if l, err := r.List(t.Context(), subject); err != nil || l.Status != labels.Unknown {
				t.Errorf("%s: %s, %v, want unknown", name, l.Status, err)
			}
		}
	}
	listed := hostile.New(t)
	listed.On(api, hostile.Index(entry(1)))
	if l, err := repositoryAt(t, listed.Host(), twice, dead, listed.RegistryHost(pullResolve)).List(t.Context(), subject); err != nil || l.Status != labels.Present {
		t.Errorf("the mirror cannot be reached, the registry lists: %s, %v, want present", l.Status, err)
	}
}

func TestNoHostToAskIsUnknown(t *testing.T) {
	s := hostile.New(t)
	for name, r := range map[string]*Repository{
		"no host":                repositoryAt(t, s.Host(), twice),
		"none that may pull":     repositoryAt(t, s.Host(), twice, s.RegistryHost(docker.HostCapabilityPush|docker.HostCapabilityResolve)),
		"one that cannot tell":   repositoryAt(t, s.Host(), twice, s.RegistryHost(pull)),
		"two that cannot tell":   repositoryAt(t, "registry.test", twice, s.RegistryHost(pull), s.RegistryHost(pullReferrers)),
		"referrers, but no pull": repositoryAt(t, s.Host(), twice, s.RegistryHost(docker.HostCapabilityReferrers)),
	} {
		l, err := r.List(t.Context(), subject)
		if err != nil || l.Status != labels.Unknown || len(l.Answers) == 0 {
			t.Errorf("%s: %s with %d answers, %v, want unknown and why", name, l.Status, len(l.Answers), err)
		}
	}
}
