package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
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
func compare(ctx context.Context, log io.Writer, s scene, rounds int, all []*contender) (_ []result, err error) {
	st, err := s.setUp(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, st.close()) }()
	results := make([]result, len(all))
	for i, c := range all {
		results[i].contender = c
	}
	for n := range rounds + 1 {
		for i := range all {
			r := &results[(n+i)%len(all)]
			sample, err := round(ctx, r.contender, st)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", s.key, r.key, err)
			}
			if n > 0 { // the first warms up
				r.samples = append(r.samples, sample)
			}
			if err := remove(ctx, r.daemon, st); err != nil {
				return nil, err
			}
		}
		fmt.Fprintf(log, "%s: round %d of %d\n", s.key, n, rounds)
	}
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

func find(results []result, key string) result {
	for _, r := range results {
		if r.key == key {
			return r
		}
	}
	panic("no contender " + key) // a bug here, not in what is measured
}

// ratio is the plugin's median time over another contender's.
func ratio(results []result, other string) float64 {
	return float64(find(results, pluginKey).time()) / float64(find(results, other).time())
}
