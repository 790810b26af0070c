package main

import "time"

// What a waterfall measures, in pixels.
const (
	fallLeft, fallRight = 330.0, 30.0
	fallRow, fallHead   = 18.0, 34.0
)

// waterfall draws the traces one beneath the other, at one scale of time.
func waterfall(all []trace, roundTrip time.Duration) []byte {
	longest := time.Duration(0)
	for _, t := range all {
		longest = max(longest, t.took)
	}
	x := func(d time.Duration) float64 {
		return fallLeft + (width-fallLeft-fallRight)*float64(d)/float64(longest)
	}
	s, y := &svg{}, 0.0
	for _, t := range all {
		s.text(8, y+20, "h", "start", "%s", t.heading())
		y += fallHead
		s.scale(y, y+fallRow*float64(len(t.events)), longest, roundTrip, x)
		top := y
		for _, e := range t.events {
			label, class := t.label(e)
			s.text(8, y+11, "", "start", "#%d  %s", e.connection, label)
			s.bar(x(e.start), y, x(min(e.end, longest))-x(e.start), fallRow-5, class)
			y += fallRow
		}
		s.bar(x(t.took)-1, top-6, 2, y-top+6, auxil)
		y += 10
	}
	s.legend(y + 4)
	s.height = int(y) + 44
	return s.document("Requests and connections of one pull, as the client saw them")
}

// scale draws a line for each round trip, or for each 20 ms where there is none, and
// the time at every second one.
func (s *svg) scale(top, end float64, longest, roundTrip time.Duration, x func(time.Duration) float64) {
	if roundTrip < 5*time.Millisecond {
		roundTrip = 20 * time.Millisecond
	}
	for i, at := 0, time.Duration(0); at <= longest; i, at = i+1, at+roundTrip {
		s.line(x(at), top-6, x(at), end)
		if i%2 == 0 && i > 0 {
			s.text(x(at), end+10, mutedFg, "middle", "%d", at.Milliseconds())
		}
	}
}

// legend says what the colours mean.
func (s *svg) legend(y float64) {
	at := 8.0
	for _, entry := range []struct {
		class, text string
		width       float64
	}{
		{theirs, "image", 80}, {ours, "referrers", 100},
		{auxil, "token, or refused for want of one", 235}, {links, "a connection's handshakes", 200},
	} {
		s.bar(at, y, 12, 10, entry.class)
		s.text(at+18, y+9, "", "start", "%s", entry.text)
		at += entry.width
	}
	s.text(8, y+28, mutedFg, "start", "A line is a round trip, with its time in ms; #1 is the connection; the upright bar is the end of the pull.")
}
