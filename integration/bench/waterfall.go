package main

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// trace is one pull as the registry saw it.
type trace struct {
	name     string
	requests []registry.Request // by their start
	began    time.Time
	took     time.Duration
	img      *image
}

// traces pulls the image once by each contender and keeps what the registry saw.
func traces(ctx context.Context, s scene, all []*contender) (_ []trace, err error) {
	st, err := s.setUp(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, st.close()) }()
	var out []trace
	for _, c := range all {
		for range 3 { // the last of them is kept: the first ones warm up
			if err := remove(ctx, c.daemon, st); err != nil {
				return nil, err
			}
			if s.again {
				if err := c.pull(ctx, c.daemon, st); err != nil {
					return nil, err
				}
			}
			st.reg.Reset()
			t := trace{name: strings.Trim(c.name, "*"), began: time.Now(), img: st.img}
			if err := c.pull(ctx, c.daemon, st); err != nil {
				return nil, err
			}
			t.took, t.requests = time.Since(t.began), st.reg.Requests()
			slices.SortFunc(t.requests, func(a, b registry.Request) int { return a.Start.Compare(b.Start) })
			out = append(out, t)
		}
		out[len(out)-3] = out[len(out)-1]
		out = out[:len(out)-2]
		if err := remove(ctx, c.daemon, st); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// waterfall draws the traces one beneath the other, at one scale of time.
func waterfall(all []trace) []byte {
	const left, right, row, head = 330.0, 30.0, 18.0, 34.0
	longest := time.Duration(0)
	for _, t := range all {
		longest = max(longest, t.took)
	}
	x := func(d time.Duration) float64 { return left + (width-left-right)*float64(d)/float64(longest) }
	s, y := &svg{}, 0.0
	for _, t := range all {
		s.text(8, y+20, "h", "start", "%s", t.name)
		end := y + head + row*float64(len(t.requests))
		for at := time.Duration(0); at <= longest; at += 20 * time.Millisecond {
			s.line(x(at), y+head-6, x(at), end)
			if at%(40*time.Millisecond) == 0 {
				s.text(x(at), y+20, mutedFg, "middle", "%d", at.Milliseconds())
			}
		}
		y += head
		for _, r := range t.requests {
			label, class := t.label(r)
			s.text(8, y+11, "", "start", "%s", label)
			s.bar(x(r.Start.Sub(t.began)), y, x(r.End.Sub(r.Start))-left, row-5, class)
			y += row
		}
		s.bar(x(t.took)-1, end-row*float64(len(t.requests))-6, 2, row*float64(len(t.requests))+6, auxil)
		y += 10
	}
	s.bar(8, y+4, 12, 10, theirs)
	s.text(26, y+13, "", "start", "image")
	s.bar(90, y+4, 12, 10, ours)
	s.text(108, y+13, "", "start", "referrers")
	s.bar(190, y+4, 12, 10, auxil)
	s.text(208, y+13, "", "start", "token, or refused for want of one; the upright line is the end of the pull. Time in ms.")
	s.height = int(y) + 24
	return s.document("Requests of one pull, as the registry saw them")
}

// label says in words what a request is for, and for whom.
func (t trace) label(r registry.Request) (label, class string) {
	at, _, _ := strings.Cut(r.Path, "?")
	last := path.Base(at)
	names := map[string]string{t.img.index.Digest.String(): "index", t.img.manifest.Digest.String(): "manifest"}
	for i, d := range t.img.referrers {
		names[d.Digest.String()] = fmt.Sprintf("referrer %d", i+1)
		names[t.img.blobs[i].String()] = fmt.Sprintf("referrer %d's blob", i+1)
	}
	what, class := names[last], theirs
	switch {
	case at == "/token":
		return r.Method + " token", auxil
	case strings.Contains(at, "/referrers/"):
		what, class = "list referrers of "+cmp.Or(what, last), ours
	case strings.HasPrefix(last, "sha256-"):
		tag := last[strings.LastIndexByte(last, '.')+1:]
		what, class = "cosign's tag ."+tag+" of "+names["sha256:"+strings.TrimSuffix(strings.TrimPrefix(last, "sha256-"), "."+tag)], ours
	case strings.HasPrefix(what, "referrer"):
		class = ours
	case what == "" && strings.Contains(at, "/blobs/"):
		what = "config or layer"
	case what == "":
		what = "tag " + last
	}
	if r.Code == 401 {
		class = auxil
	}
	if r.Code != 200 {
		what = fmt.Sprintf("%s (%d)", what, r.Code)
	}
	return r.Method + " " + what, class
}

// String lists the requests with their times, in milliseconds since the pull began.
func (t trace) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d ms\n", t.name, t.took.Milliseconds())
	for _, r := range t.requests {
		label, _ := t.label(r)
		fmt.Fprintf(&b, "  %4d %4d  %s\n", r.Start.Sub(t.began).Milliseconds(), r.End.Sub(t.began).Milliseconds(), label)
	}
	return b.String()
}
