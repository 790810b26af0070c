package main

import (
	"fmt"
	"strings"
	"time"
)

// bars draws the times over that of stock containerd, of the scenes with a column in
// the README's table.
func bars(all []measured, roundTrip time.Duration) []byte {
	const left, right, row = 330.0, 60.0, 22.0
	// What takes longer is cut off, and says how long it is.
	const most = 3.0
	s, y := &svg{}, 8.0
	x := func(ratio float64) float64 { return left + (width-left-right)*min(ratio, most)/most }
	for _, m := range all {
		if m.column() == "" || find(m.results, stockKey) == nil {
			continue
		}
		s.text(8, y+14, "h", "start", "%s", m.title)
		y += 24
		top := y
		for _, r := range m.results {
			ratio := ratio(m.results, r.key, stockKey)
			class := theirs
			if r.key == pluginKey {
				class = ours
			}
			s.text(left-10, y+13, "", "end", "%s", strings.NewReplacer("*", "", "`", "").Replace(r.name))
			s.bar(left, y+1, x(ratio)-left, row-6, class)
			s.text(x(ratio)+6, y+13, mutedFg, "start", "%.2f", ratio)
			y += row
		}
		s.line(x(1), top-2, x(1), y)
		y += 14
	}
	s.text(8, y+4, mutedFg, "start", "Median time of a pull over that of stock containerd without referrers; TLS, HTTP/1.1, round trip %s. Shorter is better.", roundTrip)
	s.height = int(y) + 16
	return s.document("Time of a pull over that of stock containerd without referrers")
}

// plot draws time over the number of referrers.
func plot(points []point) []byte {
	const left, right, top, bottom, height = 70.0, 30.0, 20.0, 50.0, 320.0
	last, most := points[len(points)-1], float64(0)
	for _, p := range points {
		most = max(most, float64(p.time))
	}
	x := func(n int) float64 { return left + (width-left-right)*float64(n)/float64(last.referrers) }
	y := func(t float64) float64 {
		return height - bottom - (height-top-bottom)*t/most
	}
	s := &svg{height: height}
	for i := range 5 {
		at := most * float64(i) / 4
		s.line(left, y(at), width-right, y(at))
		s.text(left-8, y(at)+4, mutedFg, "end", "%.1f s", at/1e9)
	}
	var path strings.Builder
	for i, p := range points {
		fmt.Fprintf(&path, "%c%.1f %.1f ", "ML"[min(i, 1)], x(p.referrers), y(float64(p.time)))
		fmt.Fprintf(s, `<circle cx="%.1f" cy="%.1f" r="3.5" class="a"/>`+"\n", x(p.referrers), y(float64(p.time)))
		if p.referrers >= last.referrers/12 {
			s.text(x(p.referrers), height-bottom+18, mutedFg, "middle", "%d", p.referrers)
		}
	}
	fmt.Fprintf(s, `<path d="%s" class="pa"/>`+"\n", strings.TrimSpace(path.String()))
	s.text((left+width-right)/2, height-10, "", "middle", "referrers, all taken; no delay")
	return s.document("Time of a pull over the number of its referrers")
}
