package registry

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

var manifestPath = repository + "manifests/" + subject.String()

// to redirects to the path at a server.
func to(s *hostile.Server, path string) hostile.Answer {
	return hostile.Status(303).With("Location", s.URL()+path)
}

// TestRedirectedEndpoint has the endpoint, and where said the tag and the manifests,
// redirected to another host.
func TestRedirectedEndpoint(t *testing.T) {
	manifest := hostile.Content(ocispec.MediaTypeImageManifest, []byte("{}"))
	proved := manifest.With("Docker-Content-Digest", subject.String())
	one := hostile.Index(entry(1))
	text404 := hostile.Content("text/plain", []byte("not found"))
	text404.Code = 404
	for _, tc := range []struct {
		name   string
		target hostile.Answer // the endpoint's, elsewhere
		script func(s, edge *hostile.Server)
		status labels.Status
		found  int
		again  bool // the next subject's endpoint is asked
	}{
		{name: "a listing", target: one, status: labels.Present, found: 1, again: true},
		{name: "a listing without manifests", target: hostile.Index(), status: labels.Absent, again: true},
		{name: "404, and the registry has no tag", target: text404,
			script: func(s, _ *hostile.Server) { s.On(manifestPath, proved) }, status: labels.Absent},
		{name: "404, and the registry has neither tag nor manifest: the repository may not be there", target: text404, status: labels.Absent, again: true},
		{name: "404, and the tag lists", target: text404, script: func(s, _ *hostile.Server) { s.On(tag, one) }, status: labels.Present, found: 1},
		{name: "405, and the tag lists", target: hostile.Status(405), script: func(s, _ *hostile.Server) { s.On(tag, one) }, status: labels.Present, found: 1},
		{name: "405, and the registry has no tag", target: hostile.Status(405), status: labels.Unknown},
		{name: "429, and the registry has no tag", target: hostile.Status(429).With("Retry-After", "3600"), status: labels.Unknown},
		{name: "503, and the tag lists", target: hostile.Status(503), script: func(s, _ *hostile.Server) { s.On(tag, one) }, status: labels.Unknown, found: 1},
		{name: "a login page, and the registry has no tag", target: hostile.Content("text/html", []byte("<html>")), status: labels.Unknown},
		{name: "silence, and the registry has no tag", target: hostile.Answer{Hang: true}, status: labels.Unknown},
		{name: "silence, and the tag lists", target: hostile.Answer{Hang: true}, script: func(s, _ *hostile.Server) { s.On(tag, one) }, status: labels.Unknown, found: 1},
		{name: "everything goes there, and it has the manifest", target: text404, script: func(s, edge *hostile.Server) {
			s.On(tag, to(edge, tag))
			s.On(manifestPath, to(edge, manifestPath))
			edge.On(manifestPath, proved)
		}, status: labels.Absent},
		{name: "everything goes there, and it has a manifest of which it says no digest", target: text404, script: func(s, edge *hostile.Server) {
			s.On(tag, to(edge, tag))
			s.On(manifestPath, to(edge, manifestPath))
			edge.On(manifestPath, manifest)
		}, status: labels.Absent},
		{name: "everything goes to a portal", target: text404, script: func(s, edge *hostile.Server) {
			s.On(tag, to(edge, tag))
			s.On(manifestPath, to(edge, "/login"))
			edge.On("/login", hostile.Content("text/html", []byte("<html>")))
		}, status: labels.Unknown, again: true},
		{name: "everything goes to a portal that knows nothing", target: text404, script: func(s, edge *hostile.Server) {
			s.On(tag, to(edge, tag))
			s.On(manifestPath, to(edge, "/nothing"))
		}, status: labels.Unknown, again: true},
		{name: "the tag goes where the manifests do not", target: text404, script: func(s, edge *hostile.Server) {
			s.On(tag, to(edge, tag))
			s.On(manifestPath, proved)
		}, status: labels.Unknown, again: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, edge := hostile.New(t), hostile.New(t)
			s.On(api, to(edge, "/api"))
			edge.On("/api", tc.target)
			if tc.script != nil {
				tc.script(s, edge)
			}
			limits := twice
			limits.Request, limits.RetryAfter = time.Second, time.Minute
			r := repositoryAt(t, s.Host(), limits, s.RegistryHost(pullResolve))
			began := time.Now()
			l, err := r.List(t.Context(), subject)
			if err != nil || l.Status != tc.status || len(l.Referrers) != tc.found {
				t.Errorf("%s with %d, %v, want %s with %d: %v", l.Status, len(l.Referrers), err, tc.status, tc.found, l.Answers)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %s: another host's Retry-After was waited for", took)
			}
			if h := r.Hosts(pull)[0]; h.Down() != nil {
				t.Errorf("the registry is down: %v", h.Down())
			}
			before := len(s.Paths())
			again, err := r.List(t.Context(), digest.FromString("another"))
			if err != nil {
				t.Fatal(err)
			}
			if asked := strings.Contains(s.Paths()[before], "/referrers/"); asked != tc.again {
				t.Errorf("the next subject: asked for %q, %v", s.Paths()[before:], again.Answers)
			}
		})
	}
}

// A target that does not answer costs one request's time, for all subjects of a pull
// together, and the next pull none.
func TestSilentTargetCostsOneRequest(t *testing.T) {
	s, edge := hostile.New(t), hostile.New(t)
	limits := twice
	limits.Request = time.Second
	edge.On("/api", hostile.Answer{Hang: true})
	var subjects []digest.Digest
	for n := range 6 {
		dgst := digest.FromString(fmt.Sprint("subject ", n))
		s.On(repository+"referrers/"+dgst.String(), to(edge, "/api"))
		subjects = append(subjects, dgst)
	}
	now := &clock{time.Now()}
	c := &Capabilities{clock: now.tell}
	pull := func() time.Duration {
		r := repositoryAt(t, s.Host(), limits, s.RegistryHost(pullResolve))
		r.SetCapabilities(c)
		began := time.Now()
		var all sync.WaitGroup
		for n, dgst := range subjects {
			all.Go(func() {
				time.Sleep(time.Duration(n) * 150 * time.Millisecond) // as an image's manifests come
				l, err := r.List(t.Context(), dgst)
				if err != nil || l.Status != labels.Unknown {
					t.Errorf("%s, %v, want unknown: %v", l.Status, err, l.Answers)
				}
			})
		}
		all.Wait()
		if h := r.Hosts(pullResolve)[0]; h.Down() != nil {
			t.Errorf("the registry is down: %v", h.Down())
		}
		return time.Since(began)
	}
	if took := pull(); took > limits.Request*3/2 {
		t.Errorf("the pull took %s, want one limit of %s", took, limits.Request)
	}
	asked := len(edge.Paths())
	if took := pull(); took > limits.Request*9/10 {
		t.Errorf("the next pull took %s", took)
	}
	now.now = now.now.Add(silenceTime)
	if got := len(edge.Paths()); got != asked {
		t.Errorf("the next pull asked the target %d times", got-asked)
	}
	pull()
	if got := len(edge.Paths()); got == asked {
		t.Error("the target is never asked again")
	}
}

// What a target does is no failure of the registry, which other requests would pass over.
func TestTargetThatFailsIsNotTheRegistry(t *testing.T) {
	for name, target := range map[string]hostile.Answer{
		"429": hostile.Status(429).With("Retry-After", "600"), "503": hostile.Status(503), "a broken connection": {Drop: true}, "silence": {Hang: true},
	} {
		s, edge := hostile.New(t), hostile.New(t)
		s.On(api, to(edge, "/api"))
		edge.On("/api", target)
		limits := twice
		limits.Request = time.Second
		r := repositoryAt(t, s.Host(), limits, s.RegistryHost(pullResolve))
		if l, err := r.List(t.Context(), subject); err != nil || l.Status != labels.Unknown {
			t.Errorf("%s: %s, %v, want unknown", name, l.Status, err)
		}
		h := r.Hosts(pull)[0]
		if reason, _ := h.health.failed(); reason != "" || h.Down() != nil {
			t.Errorf("%s: the registry is known to fail: %s, %v", name, reason, h.Down())
		}
	}
}

// A target that refuses connections is as silent.
func TestTargetThatCannotBeReached(t *testing.T) {
	s := hostile.New(t)
	dead := closedHost(t)
	s.On(api, hostile.Status(303).With("Location", "http://"+dead.Host+"/api"))
	s.On(tag, hostile.Index(entry(1)))
	l, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).List(t.Context(), subject)
	if err != nil || l.Status != labels.Unknown {
		t.Errorf("%s, %v, want unknown", l.Status, err)
	}
	checkDigests(t, l.Referrers, entries(1, 1))
	checkAnswers(t, l.Answers, s.Host(), []string{"referrers: 0 unknown", "tag: 200 present"})
	if !strings.Contains(l.Answers[0].Detail, dead.Host) {
		t.Errorf("the answer does not name the target: %s", l.Answers[0])
	}
}

// GitLab reads the fallback tag as the subject's digest: an index's own manifests are
// not its referrers.
func TestTagThatHoldsTheSubjectItself(t *testing.T) {
	body := hostile.Index(entry(1)).Body
	index := digest.FromBytes(body)
	for _, mediaType := range []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, "application/json"} {
		for endpoint, want := range map[int]labels.Status{404: labels.Absent, 405: labels.Unknown, 200: labels.Unknown} {
			s := hostile.New(t)
			s.On(repository+"referrers/"+index.String(), hostile.Status(endpoint))
			s.On(repository+"manifests/"+FallbackTag(index), hostile.Content(mediaType, body))
			l, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).List(t.Context(), index)
			if err != nil || l.Status != want || len(l.Referrers)+len(l.Rejected) > 0 {
				t.Errorf("%s after %d: %s with %d referrers, %v, want %s with none", mediaType, endpoint, l.Status, len(l.Referrers), err, want)
			}
		}
	}
}

// registry.k8s.io sends cosign's tags to another host than its manifests: that one's 404 is
// its word on them. A page of any size is none.
func TestCosignTagElsewhere(t *testing.T) {
	s, edge := hostile.New(t), hostile.New(t)
	s.On(cosignPath(CosignKinds[0]), to(edge, "/tag"))
	r := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve))
	_, answers := r.CosignTag(t.Context(), subject, CosignKinds[0])
	checkAnswers(t, answers, s.Host(), []string{"tag: 404 absent"})
	edge.On("/tag", hostile.Answer{Header: map[string]string{"Content-Type": "text/html"}, Body: make([]byte, 1<<20), Endless: true})
	_, answers = r.CosignTag(t.Context(), subject, CosignKinds[0])
	checkAnswers(t, answers, s.Host(), []string{"tag: 200 unknown"})
}
