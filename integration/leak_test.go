package integration

import (
	"fmt"
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
	before := settled(t, d, daemon.Usage{}, reg)
	for range pulls {
		again()
	}
	after := settled(t, d, before, reg)
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

// What the daemon remembers of registries grows with their number, to its bound, and not
// with pulls: connections, goroutines and bytes are flat. There are a tenth as many
// registries as pulls, 50 at most.
func TestPullsLeakNothingOfManyRegistries(t *testing.T) {
	pulls := long(t, "TRANSFER_REFERRERS_PULLS", 12)
	var registries []*registry.Registry
	for n := range max(3, min(50, pulls/10)) {
		reg := startRegistry(t, registry.Olareg, registry.WithToken("user", "secret"))
		image := pushSmall(t, reg, "app", "v1", fmt.Sprint("image ", n))
		attach(t, reg, "app", image.Descriptor, "application/vnd.cncf.notary.signature", []byte(fmt.Sprint("signature ", n)))
		registries = append(registries, reg)
	}
	d := startDaemon(t, active(everything))
	again := func(n int) {
		reg := registries[n%len(registries)]
		pull(t, d, reg.Host+"/app:v1", "--plain-http", "-u", "user:secret")
		if open := reg.Open(); open > 8 {
			t.Errorf("%d connections are open to one registry", open)
		}
	}
	for n := range registries {
		again(n)
		again(n)
	}
	for _, reg := range registries {
		if n := reg.Count("/token"); n != 1 {
			t.Errorf("%d token requests for two pulls, want 1", n)
		}
	}
	before := settled(t, d, daemon.Usage{}, registries...)
	for n := range pulls {
		again(n)
	}
	after := settled(t, d, before, registries...)
	t.Logf("%d pulls from %d registries: before %s, after %s", pulls, len(registries), before, after)
	if after.Goroutines > before.Goroutines || after.OpenFiles > before.OpenFiles {
		stacks, err := d.Goroutines(testContext(t))
		t.Errorf("pulls leave goroutines or open files (%v): %s", err, stacks)
	}
	if grown := after.Resident - before.Resident; grown > 24<<10 {
		t.Errorf("the daemon holds %d KiB more", grown)
	}
}

// settled returns what the daemon holds: once that is no more than before, or the
// least that is seen for a while. Connections that wait for another pull are closed
// by the registry.
func settled(t *testing.T, d *daemon.Daemon, before daemon.Usage, registries ...*registry.Registry) daemon.Usage {
	t.Helper()
	for _, reg := range registries {
		reg.Disconnect()
	}
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
