package registry

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

const (
	// failedTime is how long a host that failed is asked after the others.
	failedTime = 30 * time.Second
	// maxFailedTime is the longest that a Retry-After can make it.
	maxFailedTime = 10 * time.Minute
)

// health is what is known of a host that failed. It only says whom to ask first: a host is
// asked all the same where no other has an answer. Safe for concurrent use.
type health struct {
	mu           sync.Mutex
	reason       string
	since, until time.Time
}

// fail notes that the host failed, for the given time or, where that is 0, failedTime.
func (h *health) fail(reason string, lasts time.Duration) {
	if lasts <= 0 {
		lasts = failedTime
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.reason, h.since, h.until = reason, now, now.Add(min(lasts, maxFailedTime))
}

// recover notes that the host answered a request that was made at the given time. One that was
// on its way when the host failed says nothing.
func (h *health) recover(asked time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if asked.After(h.since) {
		h.reason = ""
	}
}

// failed returns why the host failed and how long ago, "" where it is not known to fail.
func (h *health) failed() (reason string, ago time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reason == "" || time.Now().After(h.until) {
		return "", 0
	}
	return h.reason, time.Since(h.since)
}

// notAsked says why the host was passed over.
func (h *health) notAsked() string {
	reason, ago := h.failed()
	return outcome.Shorten(fmt.Sprintf("not asked: it failed %s ago, and another host answered: %s", ago.Round(time.Second), reason))
}

// note learns from an attempt at a request, which was made at the given time: from what went
// wrong, only if it was the last.
func (h *health) note(asked time.Time, resp *http.Response, err error, last bool) {
	switch {
	case !last && (resp == nil || passing(resp.StatusCode)):
	case resp != nil && passing(resp.StatusCode):
		h.fail(http.StatusText(resp.StatusCode), retryAfter(resp.Header.Get("Retry-After"), time.Now()))
	case resp != nil:
		h.recover(asked)
	case broken(err):
		h.fail(err.Error(), 0)
	}
}

// health returns what is remembered of a host of the session.
func (s *session) health(host string) *health {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.healths[host] == nil {
		s.healths[host] = &health{}
	}
	return s.healths[host]
}

// asking returns the repository for requests to a host that it is decided now to ask.
func (r *Repository) asking() *Repository {
	asking := *r
	asking.asked = time.Now()
	return &asking
}

// askInTurn asks hosts in their order until one has an answer that ends the search. A host
// that fails, or is known to, is asked again with the patience that it is due only where
// no host has an answer. ask reports whether there is an answer, and whether it ends the search.
//
// It returns the hosts that were passed over as known to fail.
func (r *Repository) askInTurn(hosts []*Host, ask func(*Repository, *Host) (answered, end bool)) (passed []*Host) {
	if len(hosts) == 1 {
		ask(r, hosts[0])
		return nil
	}
	anyAnswered := false
	var again []*Host
	for i, h := range hosts {
		asking := r.asking()
		if reason, _ := h.health.failed(); reason != "" && h.Down() == nil {
			passed = append(passed, h)
			continue
		}
		if i < len(hosts)-1 {
			asking.limits.Attempts = 1 // another can answer, in less time than it would wait
		}
		answered, end := ask(asking, h)
		if end {
			return nil
		}
		anyAnswered = anyAnswered || answered
		if reason, _ := h.health.failed(); !answered && reason != "" && i < len(hosts)-1 {
			again = append(again, h)
		}
	}
	if anyAnswered {
		return passed
	}
	for _, h := range append(passed, again...) {
		if answered, end := ask(r.asking(), h); answered || end {
			break
		}
	}
	return nil
}
