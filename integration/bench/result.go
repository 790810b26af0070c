package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// result is what a contender's pulls of one scene cost.
type result struct {
	*contender
	samples []sample
}

// compare runs all contenders in turn, round by round, each round beginning with
// another of them: what the machine does meanwhile falls on all alike.
func (o options) compare(ctx context.Context, log io.Writer, s scene, all []*contender) (_ []result, err error) {
	st, err := s.setUp(ctx, o.roundTrip, o.key)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, st.close()) }()
	var results []result
	for _, c := range all {
		if slices.Contains(s.contenders, c.key) && o.wantsContender(c.key) {
			results = append(results, result{contender: c})
		}
	}
	began, rounds := time.Now(), s.rounds(o)
	for n := range rounds + 1 {
		for i := range results {
			r := &results[(n+i)%len(results)]
			sample, err := round(ctx, r.contender, st)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", s.key, r.key, err)
			}
			if n > 0 { // the first warms up
				r.samples = append(r.samples, sample)
			}
		}
	}
	fmt.Fprintf(log, "%s: %d rounds in %s\n", s.key, rounds, time.Since(began).Round(time.Second/10))
	return results, nil
}

// median returns the middle value, of an even number the lower.
func median[T cmp.Ordered](samples []sample, of func(sample) T) T {
	values := sorted(samples, of)
	return values[(len(values)-1)/2]
}

func sorted[T cmp.Ordered](samples []sample, of func(sample) T) []T {
	var values []T
	for _, s := range samples {
		values = append(values, of(s))
	}
	slices.Sort(values)
	return values
}

func elapsed(s sample) time.Duration { return s.time }

// time is the median; spread is half of what lies between the quartiles, as a part
// of the median.
func (r result) time() time.Duration { return median(r.samples, elapsed) }

func (r result) spread() float64 {
	values := sorted(r.samples, elapsed)
	n := len(values) - 1
	return float64(values[(3*n+2)/4]-values[n/4]) / 2 / float64(r.time())
}

// find returns nil where the contender did not take part.
func find(results []result, key string) *result {
	for i := range results {
		if results[i].key == key {
			return &results[i]
		}
	}
	return nil
}

// ratio is one contender's median time over another's, not a number where one of them
// did not take part.
func ratio(results []result, of, over string) float64 {
	a, b := find(results, of), find(results, over)
	if a == nil || b == nil {
		return math.NaN()
	}
	return float64(a.time()) / float64(b.time())
}
