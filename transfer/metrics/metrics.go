// Package metrics counts what pulls do, for the endpoint on which containerd
// shows its own metrics.
//
// Every label has a fixed set of values, all of which are there from the start:
// nothing that comes from the network or from a user's image becomes one. What
// each metric means is written in docs/metrics.md.
package metrics

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// Metrics are the instruments. A nil one counts nothing. It is safe for
// concurrent use.
type Metrics struct {
	pulls    *prometheus.CounterVec
	listings *prometheus.CounterVec
	taken    *prometheus.CounterVec
	bytes    prometheus.Counter
	wait     prometheus.Histogram
	requests *prometheus.CounterVec
	refusals *prometheus.CounterVec

	connections prometheus.Counter
	protocols   *prometheus.CounterVec
	tokens      *prometheus.CounterVec

	verdicts *prometheus.CounterVec
	evidence *prometheus.CounterVec
	withheld prometheus.Histogram
	trusts   trusts

	creations *prometheus.CounterVec
	judging   prometheus.Histogram
	connected prometheus.Gauge
}

var (
	_ prometheus.Collector = (*Metrics)(nil)
	_ registry.Observer    = (*Metrics)(nil)
)

// waitBuckets are in seconds. The default of the key timeout is 30.
var waitBuckets = []float64{0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

// judgingBuckets are in seconds. The creation of a container waits a second at most.
var judgingBuckets = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1}

// New returns instruments that stand at zero.
func New() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "transfer", Subsystem: "referrers", Name: name, Help: help}, labels)
	}
	m := &Metrics{
		pulls:     counter("pulls_total", "Pulls, by their outcome.", "outcome"),
		listings:  counter("listings_total", "Answers of hosts to what refers to a subject, by status, kind of host and way of asking.", "status", "host", "via"),
		taken:     counter("taken_total", "Referrers that were taken, by the set of their artifact type.", "set"),
		requests:  counter("requests_total", "Requests to registry hosts, by operation and class of the HTTP status.", "operation", "code"),
		refusals:  counter("refusals_total", "What a limit refused or cut, by limit.", "limit"),
		protocols: counter("answers_total", "Answers of registries, token services and storage, to requests of images and referrers, by protocol.", "protocol"),
		tokens:    counter("authorized_total", "Requests that were given a bearer token, by where it came from.", "token"),
		connections: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "transfer", Subsystem: "referrers", Name: "connections_total",
			Help: "Connections that were opened to registries, token services and storage, for images and referrers."}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "transfer", Subsystem: "referrers", Name: "taken_bytes_total",
			Help: "Bytes of referrers that were written to the content store."}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "transfer", Subsystem: "referrers", Name: "wait_seconds",
			Help: "Seconds that a pull waited for referrers once the image itself was complete.", Buckets: waitBuckets}),
	}
	m.verdicts = counter("verdicts_total", "Verdicts on images of pulls, fetches and imports, by result and the rule's mode.", "result", "mode")
	m.evidence = counter("evidence_total", "Signatures and attestations that were examined, by format and result.", "format", "result")
	m.withheld = prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "transfer", Subsystem: "referrers", Name: "withheld_seconds",
		Help: "Seconds that the layers of an image were withheld until its verdict.", Buckets: waitBuckets})
	m.creations = counter("gate_verdicts_total", "Verdicts on the images of containers that were about to be created, by result and mode.", "result", "mode")
	m.judging = prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "transfer", Subsystem: "referrers", Name: "gate_seconds",
		Help: "Seconds that a container waited for the verdict on its image.", Buckets: judgingBuckets})
	m.connected = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "transfer", Subsystem: "referrers", Name: "gate_connected",
		Help: "1 where the creation of containers is judged, else 0."})
	m.zero()
	return m
}

// Register registers instruments, or returns those that are registered already: a
// plugin may be initialized again in one process. Another error says that the
// names are taken.
func Register(r prometheus.Registerer) (*Metrics, error) {
	m := New()
	err := r.Register(m)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if m, ok := already.ExistingCollector.(*Metrics); ok {
			return m, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// zero makes every series, so that a rate has a value from the first event on.
func (m *Metrics) zero() {
	for _, o := range Endings {
		m.pulls.WithLabelValues(string(o))
	}
	for _, s := range []labels.Status{labels.Present, labels.Absent, labels.Unknown, labels.Truncated} {
		for _, via := range []outcome.Endpoint{outcome.EndpointReferrers, outcome.EndpointFallbackTag, outcome.EndpointCosignTag} {
			m.listings.WithLabelValues(string(s), hostRegistry, string(via))
			m.listings.WithLabelValues(string(s), hostMirror, string(via))
		}
	}
	for _, s := range []string{artifact.SetSignatures, artifact.SetAttestations, artifact.SetSBOMs, otherSet} {
		m.taken.WithLabelValues(s)
	}
	for _, op := range registry.Operations {
		for _, c := range []string{"2xx", "3xx", "4xx", "5xx", noCode} {
			m.requests.WithLabelValues(string(op), c)
		}
	}
	for _, p := range []string{"HTTP/1.1", "HTTP/2.0"} {
		m.protocols.WithLabelValues(p)
	}
	for _, t := range []string{tokenFetched, tokenRemembered} {
		m.tokens.WithLabelValues(t)
	}
	for _, l := range outcome.AllLimits {
		m.refusals.WithLabelValues(string(l))
	}
	for _, mode := range []policy.Verify{policy.VerifyEnforce, policy.VerifyWarn} {
		for _, result := range []verdict.Result{verdict.Verified, verdict.Refused} {
			m.verdicts.WithLabelValues(string(result), string(mode))
			m.creations.WithLabelValues(string(result), string(mode))
		}
		m.creations.WithLabelValues(unjudged, string(mode))
	}
	for _, f := range evidence.Formats {
		for _, result := range evidence.Results {
			m.evidence.WithLabelValues(string(f), string(result))
		}
	}
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.pulls, m.listings, m.taken, m.bytes, m.wait, m.requests, m.refusals, m.connections, m.protocols, m.tokens, m.verdicts, m.evidence, m.withheld, &m.trusts, m.creations, m.judging, m.connected}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
}
