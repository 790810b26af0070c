package registry

import (
	"net/http"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// Where containerd falls back from https to http, as it does for local registries, the
// pages of a listing are followed all the same.
func TestPagesAfterTheFallbackToHTTP(t *testing.T) {
	for name, target := range map[string]func(*hostile.Server) string{
		"relative": func(*hostile.Server) string { return "?page=2" },
		"absolute": func(s *hostile.Server) string { return s.URL() + api + "?page=2" },
	} {
		t.Run(name, func(t *testing.T) {
			s := hostile.New(t)
			s.On(api, hostile.Index(entry(1)).With("Link", next(target(s))), hostile.Index(entry(2)))
			host := s.RegistryHost(pullResolve)
			host.Scheme = "https"
			host.Client = &http.Client{Transport: docker.NewHTTPFallback(s.Transport())}
			l, err := repositoryAt(t, s.Host(), twice, host).List(t.Context(), subject)
			if err != nil || l.Status != labels.Present {
				t.Errorf("%s, %v, want present: %v", l.Status, err, l.Answers)
			}
			checkDigests(t, l.Referrers, entries(1, 2))
		})
	}
}
