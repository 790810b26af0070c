package registry

import (
	"net/http"
	"slices"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// A request of ours that a registry refuses with 403 for a token that an earlier pull got is made again without, and
// with the token that the challenge asks for. The image keeps its own.
func TestOursIsNotRefusedForAStaleToken(t *testing.T) {
	refused := hostile.Status(http.StatusForbidden)
	for name, tc := range map[string]struct {
		path    string
		answers func(s *hostile.Server) []hostile.Answer
		want    []string // authorizations of two requests of the second pull
	}{
		"the token is stale": {
			repository + "referrers/x",
			func(s *hostile.Server) []hostile.Answer {
				return []hostile.Answer{refused, challenging(s.URL()+"/token", ""), hostile.Index()}
			},
			[]string{"Bearer first", "", "Bearer second", "Bearer second"},
		},
		"it is not for this client": {
			repository + "referrers/x",
			func(*hostile.Server) []hostile.Answer { return []hostile.Answer{refused} },
			[]string{"Bearer first", "", "Bearer first"},
		},
		"nor with a token of its own": {
			repository + "referrers/x",
			func(s *hostile.Server) []hostile.Answer {
				return []hostile.Answer{refused, challenging(s.URL()+"/token", ""), refused}
			},
			[]string{"Bearer first", "", "Bearer second", "Bearer second"},
		},
		"a tag that is not there": {
			repository + "manifests/sha256-x",
			func(*hostile.Server) []hostile.Answer { return []hostile.Answer{refused} },
			[]string{"Bearer first", "Bearer first"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := tokenServer(t)
			s.On(tc.path, tc.answers(s)...)
			var sessions Sessions
			t.Cleanup(sessions.Close)
			if _, err := pullOf(t, &sessions, s.Host(), plain(user("a"))); err != nil {
				t.Fatal(err)
			}
			hosts, err := pullOf(t, &sessions, s.Host(), plain(user("a")))
			if err != nil {
				t.Fatal(err)
			}
			r := newRepository(t, s.Host(), quick, hosts...)
			for range 2 {
				_, _ = fetch(t, r, tc.path) // what came is not asked here
			}
			if got := authorizations(s, tc.path); !slices.Equal(got, tc.want) {
				t.Errorf("ours were authorized with %q, want %q", got, tc.want)
			}
			if _, err := pullOf(t, &sessions, s.Host(), plain(user("a"))); err != nil {
				t.Fatal(err)
			}
			if got, want := authorizations(s, imageTag), []string{"", "Bearer first", "Bearer first", "Bearer first"}; !slices.Equal(got, want) {
				t.Errorf("the image was authorized with %q, want %q", got, want)
			}
		})
	}
}
