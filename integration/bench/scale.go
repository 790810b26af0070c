package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// pageSize is that of the listing of a thousand referrers, in bytes.
const pageSize = 32 << 10

// wanted is the type of the few among many.
const wanted = "application/vnd.example.wanted"

// scaleConfig raises the limits and has a rule for each repository of the scale
// part: one that takes nothing that is there, one that takes few of many.
const scaleConfig = `
  max_referrers  = 1000
  max_blob_size  = "2GiB"
  max_total_size = "4GiB"
  cosign_tags    = "never"
  [[plugins."io.containerd.transfer.v1.referrers".rules]]
    repositories   = ["**/listed"]
    artifact_types = ["application/vnd.example.none"]
    depth          = 1
  [[plugins."io.containerd.transfer.v1.referrers".rules]]
    repositories   = ["**/few"]
    artifact_types = ["` + wanted + `"]
    depth          = 1
  [[plugins."io.containerd.transfer.v1.referrers".rules]]
    repositories   = ["**"]
    artifact_types = ["all"]
    depth          = 1
`

// point is what the plugin's pull of an image with so many referrers cost.
type point struct {
	referrers int
	sample
}

// scaled is what the scale part measured. Memory is the peak beyond that of the same
// pull without referrers, in bytes.
type scaled struct {
	points              []point
	listed, few         sample // 1,000 referrers, of which none and ten are taken
	pages               int
	bare, hundred, huge sample // none, 100 of 1 MiB, one of hugeSize
	hugeSize            int
}

// crowd attaches the referrers to the image's index; one in a hundred is wanted
// where the rule wants only some.
func crowd(ctx context.Context, st *stage, of crowdOf) (*image, error) {
	img, err := pushImage(ctx, st.reg, of.repository, 0, 1, 4<<10)
	if err != nil {
		return nil, err
	}
	for i := range of.n {
		artifactType := unwanted
		if i%100 == 0 {
			artifactType = wanted
		}
		if _, err := img.attach(ctx, st.reg, img.index, artifactType, random(uint64(5000+i), of.size)); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// scale measures how a pull grows with its referrers.
func (o options) scale(ctx context.Context, log io.Writer, d *daemon.Daemon) (_ *scaled, err error) {
	rounds, counts, out := 5, []int{1, 10, 100, 250, 500, 750, 1000}, &scaled{hugeSize: 1 << 30}
	if o.short {
		rounds, counts, out.hugeSize = 1, []int{1, 10, 100}, 64*mebibyte
	}
	rounds = cmp.Or(o.rounds, rounds)
	plugin := &contender{key: pluginKey, daemon: d, pull: transferPull}
	// Without delays: what is measured is the work.
	near, err := open(0)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, near.close()) }()
	var crowds []crowdOf
	for _, n := range counts {
		crowds = append(crowds, crowdOf{fmt.Sprintf("crowd-%d", n), n, 4 << 10})
	}
	samples, err := alternate(ctx, log, rounds, plugin, near, crowds)
	if err != nil {
		return nil, err
	}
	for i, n := range counts {
		out.points = append(out.points, point{n, samples[i]})
	}
	if samples, err = alternate(ctx, log, rounds, plugin, near, []crowdOf{{"bare", 0, 0}, {"hundred", 100, mebibyte}, {"huge", 1, out.hugeSize}}); err != nil {
		return nil, err
	}
	out.bare, out.hundred, out.huge = samples[0], samples[1], samples[2]
	far, err := open(o.roundTrip, registry.WithPageSize(pageSize))
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, far.close()) }()
	if samples, err = alternate(ctx, log, rounds, plugin, far, []crowdOf{{"few", 1000, 64}, {"listed", 1000, 64}}); err != nil {
		return nil, err
	}
	out.few, out.listed = samples[0], samples[1]
	out.pages = far.reg.Count("/referrers/" + far.img.index.Digest.String()) // of the last pull
	return out, nil
}

// crowdOf is an image in a repository, with so many referrers of one size.
type crowdOf struct {
	repository string
	n, size    int
}

// alternate puts the images into their repositories and pulls them in turn, after
// once each to warm up, so often; it returns each one's medians.
func alternate(ctx context.Context, log io.Writer, rounds int, c *contender, st *stage, crowds []crowdOf) ([]sample, error) {
	images, samples := make([]*image, len(crowds)), make([][]sample, len(crowds))
	var err error
	for i, of := range crowds {
		if images[i], err = crowd(ctx, st, of); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	for n := range rounds + 1 {
		for i := range crowds {
			st.img = images[i]
			s, err := round(ctx, c, st)
			if err != nil {
				return nil, err
			}
			if n > 0 {
				samples[i] = append(samples[i], s)
			}
		}
	}
	fmt.Fprintf(log, "scale: %d rounds in %s\n", rounds, time.Since(began).Round(time.Second/10))
	var out []sample
	for _, of := range samples {
		out = append(out, sample{
			time:     median(of, elapsed),
			requests: median(of, func(s sample) int { return s.requests }),
			peak:     median(of, func(s sample) int64 { return s.peak }),
		})
	}
	return out, nil
}

// scaleTable prints what the scale part measured.
func scaleTable(w io.Writer, s *scaled) {
	over := func(m sample) string { return size(max(0, m.peak-s.bare.peak)) }
	fmt.Fprintln(w, "| case | measured | at most |")
	fmt.Fprintln(w, "| --- | --: | --: |")
	fmt.Fprintf(w, "| 1,000 referrers on %d pages, 10 taken: time over listing alone | %.2f | 1.50 |\n", s.pages, float64(s.few.time)/float64(s.listed.time))
	fmt.Fprintf(w, "| the same: requests beyond listing alone (a manifest and a blob of each) | %d | 20 |\n", s.few.requests-s.listed.requests)
	fmt.Fprintf(w, "| 100 referrers of 1 MiB: added to the daemon's peak memory | %s | 32 MiB |\n", over(s.hundred))
	fmt.Fprintf(w, "| one referrer of %s: added to the daemon's peak memory | %s | 32 MiB |\n", size(int64(s.hugeSize)), over(s.huge))
	first, last := s.points[0], s.points[len(s.points)-1]
	middle := s.points[len(s.points)/2]
	each := func(p point) time.Duration {
		return (p.time - first.time) / time.Duration(p.referrers-first.referrers)
	}
	fmt.Fprintf(w, "| time for each referrer of %d over that of %d | %.2f | 1 is linear |\n", last.referrers, middle.referrers, float64(each(last))/float64(each(middle)))
	fmt.Fprintln(w)
}
