package registry

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// A mirror that fails costs a pull no wait while the registry answers, whatever it is
// asked about, and no answer is made of its silence.
func TestHostThatFailsIsPassedOver(t *testing.T) {
	other := digest.FromString("another subject")
	for name, tc := range map[string]struct {
		upstream hostile.Answer
		status   labels.Status
	}{
		"the registry lists":    {hostile.Index(entry(1)), labels.Present},
		"the registry has none": {hostile.Index(), labels.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			mirror, upstream := hostile.New(t), hostile.New(t)
			mirror.On(api, hostile.Status(http.StatusInternalServerError))
			upstream.On(api, tc.upstream)
			upstream.On(repository+"referrers/"+other.String(), tc.upstream)
			limits := twice
			limits.Backoff = time.Hour
			r := repositoryAt(t, upstream.Host(), limits, mirror.RegistryHost(pullResolve), upstream.RegistryHost(byDefault))
			for _, of := range []digest.Digest{subject, other} {
				l, err := r.List(t.Context(), of)
				if err != nil || l.Status != tc.status {
					t.Errorf("%s, %v, want %s", l.Status, err, tc.status)
				}
				if last := l.Answers[len(l.Answers)-1]; of == other && tc.status == labels.Unknown &&
					(last.Host != mirror.Host() || last.Status != labels.Unknown || !strings.Contains(last.Detail, "not asked: it failed")) {
					t.Errorf("%+v, want that the mirror was passed over", last)
				}
			}
			if got := len(mirror.Requests()); got != 1 {
				t.Errorf("%d requests to the mirror, want 1", got)
			}
		})
	}
}

// Where no host answers each is asked with patience.
func TestHostThatFailsIsAskedAgainWhereNoneAnswers(t *testing.T) {
	mirror, upstream := hostile.New(t), hostile.New(t)
	ill := hostile.Status(http.StatusServiceUnavailable)
	mirror.On(api, ill, ill, hostile.Index(entry(1)))
	upstream.On(api, ill)
	r := repositoryAt(t, upstream.Host(), twice, mirror.RegistryHost(pullResolve), upstream.RegistryHost(byDefault))
	l, err := r.List(t.Context(), subject)
	if err != nil || l.Status != labels.Present {
		t.Errorf("%s, %v, want what the mirror lists at last", l.Status, err)
	}
	if m, u := len(mirror.Requests()), len(upstream.Requests()); m != 3 || u != 2 {
		t.Errorf("%d requests to the mirror and %d to the registry, want 3 and 2", m, u)
	}
	if reason, _ := r.hosts[0].health.failed(); reason != "" {
		t.Errorf("the mirror answered, and counts as failing: %s", reason)
	}
}

func TestHealthIsForgotten(t *testing.T) {
	var h health
	h.fail("503", time.Hour)
	if reason, _ := h.failed(); reason != "503" || time.Until(h.until) > maxFailedTime {
		t.Errorf("%q until %s, want at most %s", reason, h.until, maxFailedTime)
	}
	h.fail("503", time.Nanosecond)
	time.Sleep(time.Millisecond)
	if reason, _ := h.failed(); reason != "" {
		t.Errorf("%q after its time", reason)
	}
	var asked []string
	hosts := []*Host{{health: &h}, {health: &health{}}}
	(&Repository{}).askInTurn(hosts, func(_ *Repository, host *Host) (answered, end bool) {
		asked = append(asked, map[bool]string{true: "first", false: "second"}[host == hosts[0]])
		return false, false
	})
	if !slices.Equal(asked, []string{"first", "second"}) {
		t.Errorf("asked %q", asked)
	}
}

// An answer to a request that was on its way when the host failed does not let it be asked again.
func TestAnswerOnItsWayIsNoRecovery(t *testing.T) {
	var h health
	before := time.Now()
	h.fail("500", 0)
	h.note(before, &http.Response{StatusCode: http.StatusOK}, nil, true)
	if reason, _ := h.failed(); reason == "" {
		t.Error("an answer to an earlier request counts")
	}
	h.note(time.Now().Add(time.Nanosecond), &http.Response{StatusCode: http.StatusOK}, nil, true)
	if reason, _ := h.failed(); reason != "" {
		t.Errorf("the host answered, and counts as failing: %s", reason)
	}
}
