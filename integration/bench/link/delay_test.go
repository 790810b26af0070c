package link

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// TestDelayIsPipelined holds that segments arrive as far from each other as they were
// sent, however many are on their way, and the end of the stream with them.
func TestDelayIsPipelined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		in, sender := io.Pipe()
		out := &arrivals{began: began}
		go func() {
			for i := range 5 {
				fmt.Fprintf(sender, "%d", i)
				time.Sleep(time.Millisecond)
			}
			sender.Close()
		}()
		if err := carry(out, in, 10*time.Millisecond, began); err != nil {
			t.Fatal(err)
		}
		if got, want := out.String(), "0@10ms 1@11ms 2@12ms 3@13ms 4@14ms "; got != want {
			t.Errorf("arrived %q, want %q", got, want)
		}
		if got, want := time.Since(began), 15*time.Millisecond; got != want {
			t.Errorf("the end came after %s, want %s", got, want)
		}
	})
}

// TestConnectingTakesARoundTrip holds that what is sent on a connection that is not
// there yet waits for it.
func TestConnectingTakesARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		in, sender := io.Pipe()
		out := &arrivals{began: began}
		go func() {
			fmt.Fprintf(sender, "hello")
			time.Sleep(25 * time.Millisecond)
			fmt.Fprintf(sender, "again")
			sender.Close()
		}()
		if err := carry(out, in, 10*time.Millisecond, began.Add(20*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if got, want := out.String(), "hello@30ms again@35ms "; got != want {
			t.Errorf("arrived %q, want %q", got, want)
		}
	})
}

// arrivals notes what is written, and when.
type arrivals struct {
	bytes.Buffer
	began time.Time
}

func (a *arrivals) Write(p []byte) (int, error) {
	fmt.Fprintf(&a.Buffer, "%s@%s ", p, time.Since(a.began))
	return len(p), nil
}
