package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// Verdict counts a verdict on an image.
func (m *Metrics) Verdict(result verdict.Result, mode policy.Verify) {
	if m == nil {
		return
	}
	m.verdicts.WithLabelValues(string(result), string(mode)).Inc()
}

// Evidence counts a piece of evidence that was examined.
func (m *Metrics) Evidence(format evidence.Format, result evidence.Result) {
	if m == nil {
		return
	}
	m.evidence.WithLabelValues(string(format), string(result)).Inc()
}

// Withheld counts how long the layers of an image were withheld.
func (m *Metrics) Withheld(d time.Duration) {
	if m == nil {
		return
	}
	m.withheld.Observe(d.Seconds())
}

// SetTrusts has the state of the operator's trusts shown, as the function returns it whenever
// metrics are collected: when the first ends, zero for never, and of how many newer files
// cannot be used.
func (m *Metrics) SetTrusts(state func() (expires time.Time, broken int)) {
	if m == nil {
		return
	}
	m.trusts.mu.Lock()
	defer m.trusts.mu.Unlock()
	m.trusts.state = state
}

// trusts collects what changes by itself.
type trusts struct {
	mu    sync.Mutex
	state func() (expires time.Time, broken int)
}

var (
	descExpiry = prometheus.NewDesc("transfer_referrers_trust_expiry_seconds", "Seconds until the first trust expires; absent where none does.", nil, nil)
	descBroken = prometheus.NewDesc("transfer_referrers_trusts_broken", "Trusts whose files as they are now cannot be used.", nil, nil)
)

// Describe implements prometheus.Collector.
func (t *trusts) Describe(ch chan<- *prometheus.Desc) {
	ch <- descExpiry
	ch <- descBroken
}

// Collect implements prometheus.Collector.
func (t *trusts) Collect(ch chan<- prometheus.Metric) {
	t.mu.Lock()
	state := t.state
	t.mu.Unlock()
	var expires time.Time
	broken := 0
	if state != nil {
		expires, broken = state()
	}
	if !expires.IsZero() {
		ch <- prometheus.MustNewConstMetric(descExpiry, prometheus.GaugeValue, time.Until(expires).Seconds())
	}
	ch <- prometheus.MustNewConstMetric(descBroken, prometheus.GaugeValue, float64(broken))
}
