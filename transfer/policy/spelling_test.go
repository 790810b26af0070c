package policy

import (
	"math"
	"testing"

	"github.com/containerd/containerd/v2/pkg/reference"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// A bound that no number is below accepts every number.
func TestBoundsThatAreNoNumbers(t *testing.T) {
	nan := math.NaN()
	for _, c := range []Condition{{Path: "/n", AtLeast: &nan}, {Path: "/n", AtMost: &nan}, {Path: "/n", Equals: nan}} {
		p, err := New([]Rule{{Repositories: []string{"**"}, Verify: VerifyEnforce, Attested: []Attested{{PredicateType: "p", By: []string{"ci"}, Where: []Condition{c}}}}})
		if err != nil {
			continue
		}
		s, err := p.Select("registry.example.com/app", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range s.Requirements() {
			if r.Kind == evidence.Attestation && r.Check([]byte(`{"n": 1}`)) == nil {
				t.Errorf("%+v is accepted at load, and holds of 1", c)
			}
		}
	}
}

// However a repository is spelt, its rule governs.
func TestSpellingsOfARepositoryAreGoverned(t *testing.T) {
	p, err := New([]Rule{
		{Repositories: []string{"registry.example.com/prod/**", "docker.io/library/**", "127.0.0.1/prod/**"}, Deny: true},
		{Repositories: []string{"**"}, ArtifactTypes: []string{"signatures"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{
		"registry.example.com/prod/app:v1", "REGISTRY.example.com/prod/app:v1", "registry.example.com:443/prod/app:v1", "registry.example.com:0443/prod/app:v1",
		"registry.example.com:/prod/app:v1", "registry.example.com./prod/app:v1", "registry.example.com.:443/prod/app:v1", "registry.example.com/x/../prod/app:v1",
		"registry.example.com//prod//app:v1", "registry.example.com/pr%6Fd/app:v1", "user@registry.example.com/prod/app:v1", "user:p@registry.example.com/prod/app:v1",
		"registry.example.com/./prod/app:v1", "registry。example。com/prod/app:v1", "ｒegistry.example.com/prod/app:v1", "registry.example.com。/prod/app:v1",
		"registry.example.com:+443/prod/app:v1", "registry.example.com:80/prod/app:v1", "registry.example.com/prod/app@sha256:0000000000000000000000000000000000000000000000000000000000000000",
		"registry.example.com/Prod/app:v1", "registry.example.com/prod/a/b/c:v1", "registry.example.com/prod/app?x:v1", "registry.example.com/prod%2Fapp:v1", "registry.example.com/prod/app/:v1",
		"docker.io/library/alpine:3", "docker.io/alpine:3", "index.docker.io/alpine:3", "registry-1.docker.io/library/alpine:3", "docker.io./alpine:3", "docker.io:443/alpine:3", "www.docker.io/library/alpine",
		"registry.hub.docker.com/library/alpine:3", // Docker Hub too: many charts name it
		"registry-1.docker.io.:443/library/alpine:3", "docker.io/./alpine:3",
		"127.0.0.1/prod/app:v1", "[::ffff:127.0.0.1]/prod/app:v1", "127.0.0.1.:443/prod/app:v1",
	} {
		spec, err := reference.Parse(ref)
		if err != nil {
			t.Logf("%s: refused: %v", ref, err)
			continue
		}
		s, err := p.Select(spec.Locator, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Denied() {
			t.Errorf("%s, repository %q, is governed by %s", ref, spec.Locator, s.RuleName())
		}
	}
}
