package metrics

import (
	"fmt"
	"time"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// Ending is what became of a pull.
type Ending string

// The outcomes. The first four are of pulls that went on: the worst status among
// the image's own subjects. Unknown is also a pull whose registry could not be asked.
const (
	Present   = Ending(labels.Present)
	Absent    = Ending(labels.Absent)
	Unknown   = Ending(labels.Unknown)
	Truncated = Ending(labels.Truncated)
	// Unselected is a pull that went on and of whose repository no rule takes
	// anything.
	Unselected Ending = "unselected"
	// Unkept is a pull that went on, but the store failed to keep the
	// referrers.
	Unkept Ending = "unkept"
	// Refused is a pull that a rule refused.
	Refused Ending = "refused"
	// Failed is a pull that failed for any other reason, or was cancelled.
	Failed Ending = "failed"
)

// Endings are all of them.
var Endings = []Ending{Present, Absent, Unknown, Truncated, Unselected, Unkept, Refused, Failed}

const (
	hostRegistry = "registry"
	hostMirror   = "mirror"

	tokenFetched    = "fetched"
	tokenRemembered = "remembered"

	otherSet = "other"
	noCode   = "none"
)

// Pull counts a pull that has ended.
func (m *Metrics) Pull(o Ending) {
	if m == nil {
		return
	}
	m.pulls.WithLabelValues(string(o)).Inc()
}

// Gathered counts what a pull's gather brought, and how long the pull waited for
// it once the image was complete.
func (m *Metrics) Gathered(out *outcome.Outcome, waited time.Duration) {
	if m == nil {
		return
	}
	m.wait.Observe(waited.Seconds())
	m.bytes.Add(float64(out.Bytes))
	for limit, n := range out.Refusals() {
		m.refusals.WithLabelValues(string(limit)).Add(float64(n))
	}
	for _, s := range out.Subjects {
		for _, a := range s.Answers {
			if a.Via != "" && a.Status != "" { // else no host was asked, or it could not tell
				m.listings.WithLabelValues(string(a.Status), hostKind(a), string(a.Via)).Inc()
			}
		}
		for _, t := range s.Taken {
			m.taken.WithLabelValues(setOf(t)).Inc()
		}
	}
}

// Request counts one attempt at a request; code 0 says that none came.
func (m *Metrics) Request(op registry.Operation, code int) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(string(op), codeClass(code)).Inc()
}

// Connected implements registry.Observer.
func (m *Metrics) Connected() {
	if m != nil {
		m.connections.Inc()
	}
}

// Requested implements registry.Observer. It counts the requests of images as well.
func (m *Metrics) Requested(protocol string) {
	if m == nil {
		return
	}
	if protocol != "HTTP/2.0" {
		protocol = "HTTP/1.1"
	}
	m.protocols.WithLabelValues(protocol).Inc()
}

// Authorized implements registry.Observer.
func (m *Metrics) Authorized(remembered bool) {
	if m == nil {
		return
	}
	source := tokenFetched
	if remembered {
		source = tokenRemembered
	}
	m.tokens.WithLabelValues(source).Inc()
}

func hostKind(a outcome.Answer) string {
	if a.Mirror {
		return hostMirror
	}
	return hostRegistry
}

func setOf(t outcome.Referrer) string {
	if set := artifact.SetOf(t.Artifact()); set != "" {
		return set
	}
	return otherSet
}

// codeClass is bounded whatever a host sends: Go's client lets codes up to 999
// through.
func codeClass(code int) string {
	if code < 200 || code > 599 {
		return noCode
	}
	return fmt.Sprintf("%dxx", code/100)
}
