package integration

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/transfer"

	registries "github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// point is a moment of a pull. What arm sets up closes reached when it has come, and
// holds the pull there, where it can, until killed is closed.
type point struct {
	name string
	arm  func(c *crash, reached chan<- struct{}, killed <-chan struct{}) transfer.ProgressFunc
}

// points are the moments of the measured pull: before, within and after the answer
// to each request, each event of progress, and as many moments in between, drawn.
func (c *crash) points() []point {
	var out []point
	for n := range c.requests {
		for _, share := range []int{0, 50, 100} {
			out = append(out, atRequest(n+1, share))
		}
	}
	for n := range c.events {
		out = append(out, atEvent(n+1))
	}
	for range len(out) {
		// The store's writes after the last request as well.
		out = append(out, after(time.Duration(c.rng.Int64N(int64(c.took+c.took/4)))))
	}
	return out
}

// atRequest is when the n-th request has been given so much of its answer, in
// percent.
func atRequest(n, share int) point {
	return point{fmt.Sprintf("at request %d, answered to %d%%", n, share), func(c *crash, reached chan<- struct{}, killed <-chan struct{}) transfer.ProgressFunc {
		var came atomic.Int64
		c.reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
			if came.Add(1) != int64(n) {
				return false
			}
			if share > 0 {
				answer(c.t, c.reg, w, r, share)
			}
			close(reached)
			<-killed // the request's context does not tell once the next is on its connection
			return true
		})
		return nil
	}}
}

func atEvent(n int) point {
	return point{fmt.Sprintf("at event %d of progress", n), func(_ *crash, reached chan<- struct{}, _ <-chan struct{}) transfer.ProgressFunc {
		var came atomic.Int64
		return func(transfer.Progress) {
			if came.Add(1) == int64(n) {
				close(reached)
			}
		}
	}}
}

func after(d time.Duration) point {
	return point{fmt.Sprintf("after %s", d), func(_ *crash, reached chan<- struct{}, _ <-chan struct{}) transfer.ProgressFunc {
		time.AfterFunc(d, func() { close(reached) })
		return nil
	}}
}

// answer gives so much of the registry's answer, in percent.
func answer(t *testing.T, reg *registries.Registry, w http.ResponseWriter, r *http.Request, share int) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, reg.Backend+r.URL.RequestURI(), nil)
	if err != nil {
		t.Error(err)
		return
	}
	req.Header = r.Header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return // the client has left
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	for key, values := range resp.Header {
		w.Header()[key] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body[:len(body)*share/100])
	_ = http.NewResponseController(w).Flush()
}
