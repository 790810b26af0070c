package metrics

import (
	"time"

	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// unjudged is the result where no verdict could be made.
const unjudged = "unjudged"

// Creation counts a verdict on a container that was about to be created; "" stands for one
// that could not be made.
func (m *Metrics) Creation(result verdict.Result, mode policy.Verify, took time.Duration) {
	if m == nil {
		return
	}
	if result == "" {
		result = unjudged
	}
	m.creations.WithLabelValues(string(result), string(mode)).Inc()
	m.judging.Observe(took.Seconds())
}

// GateConnected shows whether the creation of containers is judged.
func (m *Metrics) GateConnected(connected bool) {
	if m == nil {
		return
	}
	m.connected.Set(0)
	if connected {
		m.connected.Set(1)
	}
}
