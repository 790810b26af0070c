package source

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
)

type helper func(ref, host string) (ociregistry.Credentials, error)

func (h helper) GetCredentials(_ context.Context, ref, host string) (ociregistry.Credentials, error) {
	return h(ref, host)
}

func open(t *testing.T, opts ...ociregistry.Opt) *Source {
	t.Helper()
	r, err := ociregistry.NewOCIRegistry(t.Context(), "registry.example.com/app:v1", opts...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// All that a source was made with reaches the daemon's, as CRI hands it over.
func TestOpenKeepsWhatTheSourceHas(t *testing.T) {
	s := open(t,
		ociregistry.WithHeaders(http.Header{"X-Node": {"7"}}),
		ociregistry.WithHostDir("/etc/containerd/certs.d"),
		ociregistry.WithDefaultScheme("http"),
		ociregistry.WithHTTPDebug())
	if s.Image() != "registry.example.com/app:v1" || s.String() != "OCI Registry (registry.example.com/app:v1)" {
		t.Errorf("image %q, %s", s.Image(), s)
	}
	r := s.message.Resolver
	if r.HostDir != "/etc/containerd/certs.d" || r.DefaultScheme != "http" || s.header.Get("X-Node") != "7" || r.HttpDebug == 0 {
		t.Errorf("the message has %v, the header %v", r, s.header)
	}
}

// A source that selects nothing is written as containerd's own, for any daemon, and
// keeps what it was made with.
func TestMessageOfASourceThatSelectsNothing(t *testing.T) {
	for _, tc := range []struct {
		selection *api.Selection
		message   string
	}{
		{nil, "containerd.types.transfer.OCIRegistry"},
		{&api.Selection{}, "transferreferrers.v1.Source"},
	} {
		client, err := New(t.Context(), "registry.example.com/app:v1",
			WithRegistry(ociregistry.WithHostDir("/etc/containerd/certs.d"), ociregistry.WithDefaultScheme("http")), WithSelection(tc.selection))
		if err != nil {
			t.Fatal(err)
		}
		message, err := client.MarshalAny(t.Context(), nil)
		if err != nil || message.GetTypeUrl() != tc.message {
			t.Fatalf("the message is %v, %v; want %s", message, err, tc.message)
		}
		var daemon Source
		if err := daemon.UnmarshalAny(t.Context(), nil, message); err != nil {
			t.Fatal(err)
		}
		if r := daemon.message.Resolver; daemon.Image() != "registry.example.com/app:v1" || r.HostDir != "/etc/containerd/certs.d" || r.DefaultScheme != "http" {
			t.Errorf("received is %v", daemon.message)
		}
		if got := daemon.Claim(); (got == nil) != (tc.selection == nil) {
			t.Errorf("selected is %v, want %v", got, tc.selection)
		}
	}
}

func TestCredentialsOfASourceInProcess(t *testing.T) {
	calls := 0
	s := open(t, ociregistry.WithCredentials(helper(func(ref, host string) (ociregistry.Credentials, error) {
		calls++
		switch {
		case ref != "registry.example.com/app:v1":
			t.Errorf("asked for %s", ref)
		case host == "broken":
			return ociregistry.Credentials{}, errors.New("no such secret")
		case host == "refresh":
			return ociregistry.Credentials{Secret: "token"}, nil
		}
		return ociregistry.Credentials{Username: "user", Secret: "secret"}, nil
	})))
	ask := s.credentials(t)
	for _, host := range []string{"a", "broken", "refresh", "b"} { // a failure must not spoil the next
		user, secret, err := within(t, func() (string, string, error) { return ask(host) })
		switch {
		case host == "broken":
			if !errors.Is(err, errNoCredentials) {
				t.Errorf("a helper that fails: %q, %q, %v", user, secret, err)
			}
		case err != nil, secret == "", (user == "") != (host == "refresh"):
			t.Errorf("%s: %q, %q, %v", host, user, secret, err)
		}
	}
	if calls != 4 {
		t.Errorf("the helper was called %d times", calls)
	}
}

// credentials returns the function that the registry's hosts are given.
func (s *Source) credentials(t *testing.T) func(string) (string, string, error) {
	t.Helper()
	if s.askCredentials == nil {
		t.Fatal("the source has no credentials")
	}
	return s.askCredentials
}

func within(t *testing.T, call func() (string, string, error)) (user, secret string, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		user, secret, err = call()
	}()
	select {
	case <-done:
		return user, secret, err
	case <-time.After(5 * time.Second):
		t.Fatal("no answer within 5s")
		return "", "", nil
	}
}

// containerd's source drops the values of headers whose names are not canonical.
func TestOpenRefusesLostHeaders(t *testing.T) {
	for _, tc := range []struct {
		headers http.Header
		says    string // "" where nothing is lost
	}{
		{http.Header{"X-Node": {"7"}, "X-Empty": {""}}, ""},
		{http.Header{"x-node": {"7"}}, "loses the registry header x-node, whose name is not in canonical form: write X-Node in containerd's config.toml"},
		{http.Header{"X-Node": {"7"}, "x-node": {"8"}}, "loses the registry header x-node,"},
		{http.Header{"X-Node": {"7"}, "X-NODE-ID": {"8"}}, "write X-Node-Id in"},
	} {
		r, err := ociregistry.NewOCIRegistry(t.Context(), "registry.example.com/app:v1", ociregistry.WithHeaders(tc.headers))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(t.Context(), r)
		if tc.says == "" {
			if err != nil {
				t.Errorf("%v: %v", tc.headers, err)
			}
			continue
		}
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v: %v, want errdefs.ErrFailedPrecondition with %q", tc.headers, err, tc.says)
		}
	}
}

func TestSelectionTravels(t *testing.T) {
	src, err := New(t.Context(), "registry.example.com/app:v1", WithSelection(&api.Selection{ArtifactTypes: []string{"sboms"}}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Claim().GetArtifactTypes(); len(got) != 1 || got[0] != "sboms" {
		t.Errorf("the selection arrives as %q", got)
	}
	if !s.Opened() || src.Opened() {
		t.Error("who is opened?")
	}
}
