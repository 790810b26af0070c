package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// So many small images are pulled, so many of them at a time.
const (
	cpuImages  = 60
	cpuClients = 8
)

// cpuCases are a daemon each, and how many referrers its images have.
var cpuCases = []struct {
	key, name string
	referrers int
}{
	{stockKey, "stock containerd, no referrers", 2},
	{pluginKey, "**this plugin**, 2 referrers each", 2},
	{pluginKey, "**this plugin**, 20 referrers each", 20},
}

// cpuResult is the CPU time of one case, of a first pull of all images and of the same
// again: a sample for each round.
type cpuResult struct {
	name         string
	first, again []sample
}

// cpu has all images pulled without any delay: what counts is the work.
func (o options) cpu(ctx context.Context, log io.Writer, n nodes) ([]cpuResult, error) {
	rounds := cmp.Or(o.rounds, 3)
	if o.short {
		rounds = cmp.Or(o.rounds, 1)
	}
	began, out := time.Now(), make([]cpuResult, len(cpuCases))
	for i, of := range cpuCases {
		everyone := contenders(n)
		c := everyone[slices.IndexFunc(everyone, func(c *contender) bool { return c.key == of.key })]
		out[i].name = of.name
		if err := out[i].measure(ctx, c, of.referrers, rounds); err != nil {
			return nil, fmt.Errorf("cpu, %s: %w", of.name, err)
		}
	}
	fmt.Fprintf(log, "cpu: %d rounds in %s\n", rounds, time.Since(began).Round(time.Second/10))
	return out, nil
}

func (r *cpuResult) measure(ctx context.Context, c *contender, referrers, rounds int) (err error) {
	st, all, err := cpuStage(ctx, referrers)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, st.close()) }()
	for round := range rounds + 1 {
		first, again, err := cpuRound(ctx, c, st, all)
		if err != nil {
			return err
		}
		if round > 0 { // the first warms up
			r.first, r.again = append(r.first, first), append(r.again, again)
		}
	}
	return nil
}

// cpuStage is a registry without a link's delays, and its images.
func cpuStage(ctx context.Context, referrers int) (*stage, []*image, error) {
	s := scene{auth: true, layers: 1, layerSize: mebibyte, onIndex: referrers / 2, onManifest: referrers / 2}
	st, err := s.setUp(ctx, 0, nil)
	if err != nil {
		return nil, nil, err
	}
	var all []*image
	for i := range cpuImages {
		img, err := st.push(ctx, fmt.Sprintf("app-%d", i), uint64(i+1))
		if err != nil {
			return nil, nil, errors.Join(err, st.close())
		}
		all = append(all, img)
	}
	return st, all, nil
}

// cpuRound pulls all images and pulls them again, and removes them.
func cpuRound(ctx context.Context, c *contender, st *stage, all []*image) (first, again sample, err error) {
	if err := st.connect(); err != nil {
		return first, again, err
	}
	defer func() { err = errors.Join(err, st.disconnect()) }()
	for _, s := range []*sample{&first, &again} {
		if *s, err = pullAll(ctx, c, st, all); err != nil {
			return first, again, err
		}
	}
	return first, again, removeAll(ctx, c, st, all)
}

// pullAll pulls all images; the time is the daemon's on the CPU.
func pullAll(ctx context.Context, c *contender, st *stage, all []*image) (sample, error) {
	before, err := c.daemon.CPU()
	if err != nil {
		return sample{}, err
	}
	pulls, ctx := errgroup.WithContext(ctx)
	pulls.SetLimit(cpuClients)
	for _, img := range all {
		pulls.Go(func() error { return c.pull(ctx, c.daemon, st.of(img)) })
	}
	if err := pulls.Wait(); err != nil {
		return sample{}, err
	}
	after, err := c.daemon.CPU()
	return sample{time: after - before}, err
}

// removeAll checks that all referrers were brought, and removes the images.
func removeAll(ctx context.Context, c *contender, st *stage, all []*image) error {
	for _, img := range all {
		if err := check(ctx, c, st.of(img), nil); err != nil {
			return err
		}
	}
	for _, img := range all[1:] {
		if err := c.daemon.Client.ImageService().Delete(ctx, st.of(img).ref()); err != nil {
			return err
		}
	}
	return remove(ctx, c.daemon, st.of(all[0]))
}

// cpuTable prints what the CPU part measured.
func cpuTable(w io.Writer, all []cpuResult) {
	fmt.Fprintln(w, "| daemon | CPU time, first pull | over stock | CPU time, pulled again | over stock |")
	fmt.Fprintln(w, "| --- | --: | --: | --: | --: |")
	first := func(r cpuResult) time.Duration { return median(r.first, elapsed) }
	again := func(r cpuResult) time.Duration { return median(r.again, elapsed) }
	for _, r := range all {
		fmt.Fprintf(w, "| %s | %.2f s | %.2f | %.2f s | %.2f |\n", r.name,
			first(r).Seconds(), float64(first(r))/float64(first(all[0])),
			again(r).Seconds(), float64(again(r))/float64(again(all[0])))
	}
	fmt.Fprintln(w)
}
