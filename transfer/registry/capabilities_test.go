package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// clock is a clock that a test sets.
type clock struct{ now time.Time }

func (c *clock) tell() time.Time { return c.now }

// pullAgain lists the subject in a new session that shares what is remembered, and returns
// what was asked and learnt.
func pullAgain(t *testing.T, s *hostile.Server, c *Capabilities) (Listing, []string) {
	t.Helper()
	before := len(s.Paths())
	r := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve))
	r.SetCapabilities(c)
	l, err := r.List(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	return l, s.Paths()[before:]
}

// What lacks the endpoint is not asked for it by the next pull.
func TestMissingEndpointsAreRemembered(t *testing.T) {
	one := hostile.Index(entry(1))
	itself := func(s *hostile.Server) {
		s.On(api, hostile.Status(404))
		s.On(tag, hostile.Content(ocispec.MediaTypeImageIndex, []byte("the subject")))
	}
	for _, tc := range []struct {
		name   string
		script func(*hostile.Server)
		status labels.Status
		again  []string // what the second pull asks for
	}{
		{"404, and the tag lists", missing(404, one), labels.Present, []string{tag}},
		{"404, and the tag lists nothing", missing(404, hostile.Index()), labels.Absent, []string{tag}},
		{"404, and the tag is the subject itself", itself, labels.Absent, []string{tag}},
		{"404 and 404: the repository or the subject may not be there", missing(404), labels.Absent, []string{api, tag}},
		{"404, and the tag fails", missing(404, hostile.Status(403)), labels.Unknown, []string{api, tag}},
		{"404, and the tag's HTML", missing(404, hostile.Content("text/html", []byte("<html>"))), labels.Unknown, []string{api, tag}},
		{"405, and the tag lists", missing(405, one), labels.Present, []string{tag}},
		{"405 and 404", missing(405), labels.Unknown, []string{tag}},
		{"400", missing(400), labels.Unknown, []string{tag}},
		{"400 with an error, as Quay has it for a subject that is not there", func(s *hostile.Server) {
			s.On(api, hostile.Answer{Code: 400, Header: map[string]string{"Content-Type": "application/json"}, Body: []byte(`{"errors":[{"code":"MANIFEST_INVALID"}]}`)})
		}, labels.Unknown, []string{api, tag}},
		{"406", missing(406), labels.Unknown, []string{tag}},
		{"501", missing(501), labels.Unknown, []string{tag}},
		{"403", missing(403, one), labels.Unknown, []string{api}},
		{"200 with HTML", answering(hostile.Content("text/html", []byte("<html>"))), labels.Unknown, []string{api, tag}},
		{"an empty listing", answering(hostile.Index()), labels.Absent, []string{api}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			tc.script(s)
			var c Capabilities
			for range 3 {
				l, asked := pullAgain(t, s, &c)
				if l.Status != tc.status {
					t.Errorf("%s, want %s", l.Status, tc.status)
				}
				if len(l.Answers) > 0 && l.Answers[0].Code == 0 && !slices.Equal(asked, tc.again) {
					t.Errorf("asked for %q, want %q", asked, tc.again)
				}
			}
			if _, asked := pullAgain(t, s, &c); !slices.Equal(asked, tc.again) {
				t.Errorf("asked for %q, want %q", asked, tc.again)
			}
			if _, asked := pullAgain(t, s, nil); len(asked) == 0 || asked[0] != api {
				t.Errorf("without a memory it asked for %q, want the endpoint first", asked)
			}
		})
	}
}

// A registry that is upgraded is noticed after ten minutes, however often it was asked for
// its tags meanwhile.
func TestUpgradedRegistryIsNoticed(t *testing.T) {
	s := hostile.New(t)
	missing(404, hostile.Index(entry(1)))(s)
	now := &clock{time.Now()}
	c := Capabilities{clock: now.tell}
	pullAgain(t, s, &c)
	s.On(api, hostile.Index(entries(1, 2)...))
	for _, tc := range []struct {
		after time.Duration
		asked []string
		found int
	}{
		{3 * time.Minute, []string{tag}, 1},
		{6*time.Minute + 59*time.Second, []string{tag}, 1},
		{time.Second, []string{api}, 2},
	} {
		now.now = now.now.Add(tc.after)
		l, asked := pullAgain(t, s, &c)
		if !slices.Equal(asked, tc.asked) || len(l.Referrers) != tc.found {
			t.Errorf("%s later: asked for %q, found %d, want %q and %d", tc.after, asked, len(l.Referrers), tc.asked, tc.found)
		}
	}
}

// An operator reads that nothing was asked, and why.
func TestAnswerSaysThatItWasRemembered(t *testing.T) {
	s := hostile.New(t)
	missing(405)(s)
	now := &clock{time.Now()}
	c := Capabilities{clock: now.tell}
	pullAgain(t, s, &c)
	now.now = now.now.Add(3 * time.Minute)
	r := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve))
	r.SetCapabilities(&c)
	var used Recorder
	l, err := r.List(WithRecorder(t.Context(), &used), subject)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := used.Used(), (outcome.Memory{Host: s.Host(), Kind: outcome.MemoryCapability, Age: "3m0s"}); !slices.Contains(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}
	a := l.Answers[0]
	if a.Code != 0 || a.Status != "" || a.Detail != "not asked: answered 405 3m ago (remembered for 10m)" {
		t.Errorf("the answer is %+v", a)
	}
	if l.Status != labels.Unknown {
		t.Errorf("%s, want unknown: a 405 that is remembered says no more than one that is answered", l.Status)
	}
}

// One repository, host or algorithm says nothing of another.
func TestOthersAreAskedAllTheSame(t *testing.T) {
	s := hostile.New(t)
	missing(404, hostile.Index(entry(1)))(s)
	var c Capabilities
	pullAgain(t, s, &c)
	ask := func(name string, r *Repository, dgst digest.Digest) {
		t.Helper()
		before := len(s.Paths())
		r.SetCapabilities(&c)
		if _, err := r.List(t.Context(), dgst); err != nil {
			t.Fatal(err)
		}
		if asked := s.Paths()[before:]; len(asked) == 0 || !strings.Contains(asked[0], "/referrers/") {
			t.Errorf("%s: asked for %q, want the endpoint first", name, asked)
		}
	}
	other := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve))
	other.name = "test/other"
	ask("another repository", other, subject)
	mirror := repositoryAt(t, "registry.test", twice, s.RegistryHost(pullResolve))
	ask("a mirror of another registry", mirror, subject)
	ask("another algorithm", repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)), digest.SHA512.FromString("the subject"))
}

func TestCapabilitiesAreBounded(t *testing.T) {
	now := &clock{time.Now()}
	c := Capabilities{clock: now.tell}
	for n := range 2 * maxCapabilities {
		now.now = now.now.Add(time.Second)
		c.remember(fmt.Sprint(n), lack{code: 404}, time.Hour)
	}
	if got := len(c.known); got != maxCapabilities {
		t.Errorf("%d are remembered, want %d", got, maxCapabilities)
	}
	if _, ok := c.recall(fmt.Sprint(2*maxCapabilities - 1)); !ok {
		t.Error("the newest is forgotten")
	}
	if _, ok := c.recall("0"); ok {
		t.Error("the oldest is remembered")
	}
	now.now = now.now.Add(time.Hour)
	if _, ok := c.recall(fmt.Sprint(2*maxCapabilities - 1)); ok {
		t.Error("what is over is remembered")
	}
}
