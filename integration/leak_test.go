package integration

import (
	"math"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// Pulls and removals leave nothing: no content, lease or ingest in the store, no
// goroutine or open file in the daemon. TRANSFER_REFERRERS_PULLS says how many.
func TestPullsLeakNothing(t *testing.T) {
	pulls := long(t, "TRANSFER_REFERRERS_PULLS", 5)
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	ref := reg.Host + "/app:v1"
	again := func() {
		if err := unpackedPull(testContext(t), d.Client, ref, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.Client.ImageService().Delete(testContext(t), ref, images.SynchronousDelete()); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // what is made once, is made
		again()
	}
	before := settled(t, d, reg, daemon.Usage{})
	for range pulls {
		again()
	}
	after := settled(t, d, reg, before)
	t.Logf("%d pulls and removals: before %s, after %s", pulls, before, after)
	if after.Goroutines > before.Goroutines || after.OpenFiles > before.OpenFiles {
		stacks, err := d.Goroutines(testContext(t))
		t.Errorf("pulls leave goroutines or open files (%v): %s", err, stacks)
	}
	wantClean(t, d)
	if have := contents(t, d); len(have) > 0 {
		t.Errorf("content stays: %v", have)
	}
}

// settled returns what the daemon holds: once that is no more than before, or the
// least that is seen for a while. Connections that wait for another pull are closed
// by the registry.
func settled(t *testing.T, d *daemon.Daemon, reg *registry.Registry, before daemon.Usage) daemon.Usage {
	t.Helper()
	reg.Disconnect()
	least := daemon.Usage{Goroutines: math.MaxInt, OpenFiles: math.MaxInt}
	for range 30 {
		u, err := d.Usage(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		least = daemon.Usage{Goroutines: min(least.Goroutines, u.Goroutines), OpenFiles: min(least.OpenFiles, u.OpenFiles), Resident: u.Resident}
		if least.Goroutines <= before.Goroutines && least.OpenFiles <= before.OpenFiles {
			return least
		}
		time.Sleep(100 * time.Millisecond)
	}
	return least
}
