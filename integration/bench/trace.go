package main

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/transfer-referrers/transfer-referrers/integration/bench/link"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// trace is one pull, seen from the client: what it sent the registry got half a round
// trip later, and what the registry answered arrived as much later.
type trace struct {
	name   string
	began  time.Time
	took   time.Duration
	img    *image
	opened int // connections, during the pull
	events []event
}

// event is a request, or a connection that was opened. Times are since the pull began.
type event struct {
	// connection is its number, in the order in which those of the trace were opened.
	connection int
	start, end time.Duration // a connection's end is that of its handshakes
	request    *registry.Request
}

// traces pulls the image by each contender and keeps what the last of three pulls did:
// the first ones warm up.
func (o options) traces(ctx context.Context, s scene, all []*contender) (_ []trace, err error) {
	st, err := s.setUp(ctx, o.roundTrip, o.key)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, st.close()) }()
	var out []trace
	for _, c := range all {
		if !slices.Contains(s.contenders, c.key) || !o.wantsContender(c.key) {
			continue
		}
		var t trace
		for range 3 {
			err := st.visit(ctx, c, func() error {
				st.reg.Reset()
				t = trace{name: strings.ReplaceAll(c.name, "*", ""), began: time.Now(), img: st.img}
				err := c.pull(ctx, c.daemon, st)
				t.took = time.Since(t.began)
				return cmp.Or(err, t.read(st))
			})
			if err != nil {
				return nil, err
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// read lists the events of the pull that has just ended, by their start.
func (t *trace) read(st *stage) error {
	requests, half := st.reg.Requests(), st.roundTrip/2
	opened := st.link.Connections()
	on := map[int][]*registry.Request{} // by the connection
	for i := range requests {
		c, err := connectionOf(requests[i], opened)
		if err != nil {
			return err
		}
		on[c] = append(on[c], &requests[i])
	}
	number := 0
	for i, c := range opened {
		before := c.Opened.Before(t.began)
		if before && len(on[i]) == 0 {
			continue
		}
		number++
		if !before {
			t.opened++
			start := c.Opened.Sub(t.began)
			t.events = append(t.events, event{number, start, start + 2*st.roundTrip, nil})
		}
		for _, r := range on[i] {
			t.events = append(t.events, event{number, max(0, r.Start.Sub(t.began)-half), r.End.Sub(t.began) + half, r})
		}
	}
	slices.SortStableFunc(t.events, func(a, b event) int { return cmp.Compare(a.start, b.start) })
	return nil
}

// connectionOf returns the index of the connection that a request came on: the last
// one from its address, since ports are used again. A request past the link is an error.
func connectionOf(r registry.Request, opened []link.Connection) (int, error) {
	for i := len(opened) - 1; i >= 0; i-- {
		if opened[i].Remote == r.Remote && opened[i].Opened.Before(r.Start) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s came past the link", r)
}

// label says in words what an event is, and for whom.
func (t trace) label(e event) (label, class string) {
	if e.request == nil {
		return "connect", links
	}
	r := *e.request
	at, _, _ := strings.Cut(r.Path, "?")
	what, class := t.content(at)
	if r.Code == 401 || at == "/token" {
		class = auxil
	}
	if r.Code != 200 {
		what = fmt.Sprintf("%s (%d)", what, r.Code)
	}
	return r.Method + " " + what, class
}

// content says what lies at the path, and whether it belongs to the image.
func (t trace) content(at string) (what, class string) {
	last := path.Base(at)
	names := map[string]string{t.img.index.Digest.String(): "index", t.img.manifest.Digest.String(): "manifest"}
	for i, d := range t.img.referrers {
		names[d.Digest.String()] = fmt.Sprintf("referrer %d", i+1)
		names[t.img.blobs[i].String()] = fmt.Sprintf("referrer %d's blob", i+1)
	}
	what = names[last]
	switch {
	case at == "/token":
		return "token", theirs
	case strings.Contains(at, "/referrers/"):
		return "list referrers of " + cmp.Or(what, last), ours
	case strings.HasPrefix(last, "sha256-"):
		tag := last[strings.LastIndexByte(last, '.')+1:]
		return "cosign's tag ." + tag + " of " + names["sha256:"+strings.TrimSuffix(strings.TrimPrefix(last, "sha256-"), "."+tag)], ours
	case strings.HasPrefix(what, "referrer"):
		return what, ours
	case what == "" && strings.Contains(at, "/blobs/"):
		return "config or layer", theirs
	case what == "":
		return "tag " + last, theirs
	}
	return what, theirs
}

// requests counts them, and those over HTTP/2.
func (t trace) requests() (all, http2 int) {
	for _, e := range t.events {
		if e.request == nil {
			continue
		}
		all++
		if e.request.Proto == "HTTP/2.0" {
			http2++
		}
	}
	return all, http2
}

// heading names the trace and sums it up.
func (t trace) heading() string {
	all, http2 := t.requests()
	over := ""
	if http2 > 0 {
		over = fmt.Sprintf(", over HTTP/2: %d", http2)
	}
	return fmt.Sprintf("%s: %d ms; connections opened: %d; requests: %d%s", t.name, t.took.Milliseconds(), t.opened, all, over)
}

// String lists the events with their times in milliseconds, and the number of their
// connection.
func (t trace) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, t.heading())
	for _, e := range t.events {
		label, _ := t.label(e)
		fmt.Fprintf(&b, "  %4d %4d  #%-2d %s\n", e.start.Milliseconds(), e.end.Milliseconds(), e.connection, label)
	}
	return b.String()
}

func list(all []trace) string {
	var b strings.Builder
	for _, t := range all {
		fmt.Fprintln(&b, t)
	}
	return b.String()
}
