package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// dashboard returns the queries of docs/grafana.json by the titles of the panels.
func dashboard(t *testing.T) map[string][]string {
	t.Helper()
	var read struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readDoc(t, "grafana.json")), &read); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, p := range read.Panels {
		for _, target := range p.Targets {
			out[p.Title] = append(out[p.Title], target.Expr)
		}
		if len(out[p.Title]) == 0 {
			t.Errorf("panel %q has no query", p.Title)
		}
	}
	if len(out) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	return out
}

// alerts returns the expressions of the alerts in docs/metrics.md.
func alerts(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^        expr: (?:\|\n((?:          .*\n)+)|(.*)\n)`).FindAllStringSubmatch(readDoc(t, "metrics.md"), -1) {
		out = append(out, strings.TrimSpace(m[1]+m[2]))
	}
	if n := strings.Count(readDoc(t, "metrics.md"), "- alert:"); n == 0 || len(out) != n {
		t.Fatalf("%d of %d alerts were read: %q", len(out), n, out)
	}
	return out
}

// answers says whether the query has something to show of the scrape: each metric
// that it names is there with the labels that it matches or groups by, and what
// it matches has moved. Prometheus itself adds the label instance.
func answers(query string, scraped families) error {
	for variable, value := range map[string]string{"$instance": ".*", "$__rate_interval": "5m", "$__range": "6h"} {
		query = strings.ReplaceAll(query, variable, value)
	}
	expr, err := parser.ParseExpr(query)
	if err != nil {
		return err
	}
	var errs []error
	selectors := 0
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			selectors++
			errs = append(errs, selects(n, scraped))
		case *parser.AggregateExpr:
			errs = append(errs, groups(n, scraped))
		}
		return nil
	})
	if selectors == 0 {
		return errors.New("it names no metric")
	}
	return errors.Join(errs...)
}

// selects says whether the selector matches samples that are not zero.
func selects(n *parser.VectorSelector, scraped families) error {
	samples := samplesOf(n.Name, scraped)
	if len(samples) == 0 {
		return fmt.Errorf("there is no metric %s", n.Name)
	}
	sum := 0.0
	for _, s := range samples {
		if !slices.ContainsFunc(n.LabelMatchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels[m.Name]) }) {
			sum += s.value
		}
	}
	for _, m := range n.LabelMatchers {
		if _, ok := samples[0].labels[m.Name]; !ok {
			return fmt.Errorf("%s has no label %s", n.Name, m.Name)
		}
	}
	if sum == 0 {
		return fmt.Errorf("%s matches nothing that moved", n)
	}
	return nil
}

// groups says whether all metrics within have the labels that are grouped by.
func groups(n *parser.AggregateExpr, scraped families) error {
	var errs []error
	parser.Inspect(n.Expr, func(node parser.Node, _ []parser.Node) error {
		if v, ok := node.(*parser.VectorSelector); ok {
			for _, s := range samplesOf(v.Name, scraped) {
				for _, label := range n.Grouping {
					if _, ok := s.labels[label]; !ok {
						errs = append(errs, fmt.Errorf("%s has no label %s", v.Name, label))
						return nil
					}
				}
			}
		}
		return nil
	})
	return errors.Join(errs...)
}

type sample struct {
	labels map[string]string
	value  float64
}

// samplesOf returns the samples of a series' name, as Prometheus would store them.
func samplesOf(name string, scraped families) []sample {
	var out []sample
	for family, f := range scraped {
		suffix, ok := strings.CutPrefix(name, family)
		if !ok {
			continue
		}
		for _, m := range f.GetMetric() {
			of := map[string]string{model.MetricNameLabel: name, "instance": "node-7"}
			for _, l := range m.GetLabel() {
				of[l.GetName()] = l.GetValue()
			}
			switch {
			case f.GetType() == dto.MetricType_COUNTER && suffix == "":
				out = append(out, sample{of, m.GetCounter().GetValue()})
			case f.GetType() == dto.MetricType_GAUGE && suffix == "":
				out = append(out, sample{of, m.GetGauge().GetValue()})
			case f.GetType() == dto.MetricType_HISTOGRAM && suffix == "_bucket":
				for _, b := range m.GetHistogram().GetBucket() {
					bucket := map[string]string{model.BucketLabel: fmt.Sprint(b.GetUpperBound())}
					for k, v := range of {
						bucket[k] = v
					}
					out = append(out, sample{bucket, float64(b.GetCumulativeCount())})
				}
			case f.GetType() == dto.MetricType_HISTOGRAM && suffix == "_sum":
				out = append(out, sample{of, m.GetHistogram().GetSampleSum()})
			case f.GetType() == dto.MetricType_HISTOGRAM && suffix == "_count":
				out = append(out, sample{of, float64(m.GetHistogram().GetSampleCount())})
			}
		}
	}
	return out
}

// What finds nothing must fail.
func TestAnswers(t *testing.T) {
	one, name, label, value := 1.0, "pulls_total", "outcome", "present"
	kind := dto.MetricType_COUNTER
	scraped := families{name: {Name: &name, Type: &kind, Metric: []*dto.Metric{
		{Label: []*dto.LabelPair{{Name: &label, Value: &value}}, Counter: &dto.Counter{Value: &one}},
	}}}
	for query, good := range map[string]bool{
		`sum by (outcome, instance) (rate(pulls_total{instance=~"$instance"}[$__rate_interval]))`: true,
		`rate(pulls_total{outcome="present"}[5m])`:                                                true,
		`rate(pull_total[5m])`:                        false,
		`rate(pulls_total{outcome="absent"}[5m])`:     false,
		`rate(pulls_total{status=~".*"}[5m])`:         false,
		`sum by (status) (rate(pulls_total[5m]))`:     false,
		`rate(pulls_total[5m]`:                        false,
		`1`:                                           false,
		`histogram_quantile(0.5, pulls_total_bucket)`: false,
	} {
		if err := answers(query, scraped); (err == nil) != good {
			t.Errorf("%s: %v", query, err)
		}
	}
}
