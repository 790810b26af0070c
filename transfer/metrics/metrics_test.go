package metrics

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// A plugin that is initialized again counts on with what is registered.
func TestRegisterTwice(t *testing.T) {
	r := prometheus.NewRegistry()
	first, err := Register(r)
	if err != nil {
		t.Fatal(err)
	}
	first.Pull(Present)
	again, err := Register(r)
	if err != nil || again != first {
		t.Fatalf("got %p, %v, want %p", again, err, first)
	}
	again.Pull(Present)
	if got := value(t, r, "transfer_referrers_pulls_total", "present"); got != 2 {
		t.Errorf("%v pulls are counted, want 2", got)
	}
}

func TestRegisterWhereTheNamesAreTaken(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "transfer_referrers_taken_bytes_total", Help: "Another."}))
	if _, err := Register(r); err == nil {
		t.Error("no error")
	}
}

// Whatever comes, no series is added to those of the start.
func TestLabelsAreBounded(t *testing.T) {
	r := prometheus.NewRegistry()
	m, err := Register(r)
	if err != nil {
		t.Fatal(err)
	}
	before := series(t, r)
	for code := range 1100 {
		m.Request(registry.OpBlob, code-50)
	}
	m.Gathered(&outcome.Outcome{TimedOut: true, Unasked: 3, Bytes: 7, Subjects: []outcome.Subject{{
		Answers: []outcome.Answer{
			{Host: "a.test", Via: outcome.EndpointReferrers}, // "no such endpoint"
			{Host: "a.test", Via: outcome.EndpointFallbackTag, Status: labels.Truncated, Limit: outcome.LimitListing},
			{Host: "a.test", Status: labels.Unknown}, // no host could be asked
			{Host: "b.test", Via: outcome.EndpointReferrers, Status: labels.Present, Mirror: true},
			{Host: "c.test", Via: outcome.EndpointCosignTag, Status: labels.Unknown},
		},
		Taken: []outcome.Referrer{
			{ArtifactType: "application/x.hostile"},
			{ArtifactType: artifact.TypeCosignSBOM},
		},
		Skipped: []outcome.Referrer{{Reason: "not wanted"}, {Limit: outcome.LimitBlobSize}, {Limit: outcome.LimitBlobSize}},
	}}}, 2*time.Second)
	if after := series(t, r); after != before {
		t.Errorf("%d series, want the %d of the start", after, before)
	}
	for _, want := range []struct {
		metric string
		values []string
		value  float64
	}{
		{"refusals_total", []string{"timeout"}, 1},
		{"refusals_total", []string{"subjects_per_pull"}, 3},
		{"refusals_total", []string{"listing"}, 1},
		{"refusals_total", []string{"max_blob_size"}, 2},
		{"refusals_total", nil, 7},
		{"listings_total", []string{"truncated", "registry", "fallback_tag"}, 1},
		{"listings_total", []string{"present", "mirror", "endpoint"}, 1},
		{"listings_total", []string{"unknown", "registry", "cosign_tag"}, 1},
		{"listings_total", nil, 3},
		{"taken_total", []string{"other"}, 1},
		{"taken_total", []string{"sboms"}, 1},
		{"taken_bytes_total", nil, 7},
		{"requests_total", []string{"blob", "2xx"}, 100},
		{"requests_total", []string{"blob", "5xx"}, 100},
		{"requests_total", []string{"blob", "none"}, 700},
	} {
		if got := value(t, r, "transfer_referrers_"+want.metric, want.values...); got != want.value {
			t.Errorf("%s%v is %v, want %v", want.metric, want.values, got, want.value)
		}
	}
}

func TestNilCountsNothing(_ *testing.T) {
	var m *Metrics
	m.Pull(Failed)
	m.Gathered(&outcome.Outcome{}, time.Second)
	m.Request(registry.OpTag, 200)
}

func series(t *testing.T, r *prometheus.Registry) int {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		n += len(f.Metric)
	}
	return n
}

// value sums the counters that have all the label values.
func value(t *testing.T, r *prometheus.Registry, name string, values ...string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			has := map[string]bool{}
			for _, l := range m.Label {
				has[l.GetValue()] = true
			}
			all := true
			for _, v := range values {
				all = all && has[v]
			}
			if all {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
