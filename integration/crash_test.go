package integration

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	registries "github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// long reads from the environment how often a test repeats: `make soak` sets it.
func long(t *testing.T, name string, short int) int {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		return short
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number above 0", name, value)
	}
	return n
}

// The daemon is killed at every step of a pull, again and again. What was
// stored before stays, and the next pull succeeds whole. TRANSFER_REFERRERS_KILLS
// says how often, TRANSFER_REFERRERS_SEED repeats a run.
func TestPullThatIsKilledLosesNothing(t *testing.T) {
	kills := long(t, "TRANSFER_REFERRERS_KILLS", 16)
	seed := long(t, "TRANSFER_REFERRERS_SEED", int(time.Now().UnixNano()>>10))
	c := newCrash(t, seed)
	points := c.points()
	losses, unfinished := 0, 0
	began := time.Now()
	for n := range kills {
		if n%len(points) == 0 {
			c.rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		}
		p := points[n%len(points)]
		if c.strike(p) != nil {
			unfinished++
		}
		wrong := c.ruins()
		if len(wrong) == 0 && (n == kills-1 || c.rng.IntN(4) > 0) { // else the next kill meets the ruins
			wrong = c.recover()
		}
		if len(wrong) > 0 {
			losses++
			t.Errorf("kill %d of seed %d, %s: %s", n+1, seed, p.name, strings.Join(wrong, "; "))
			if losses == 5 {
				break
			}
			c.clear()
		}
	}
	t.Logf("%d kills in %s, %d of them before the pull had ended; seed %d; %d losses; %d pulls that containerd's snapshotter failed once",
		kills, time.Since(began).Round(time.Second), unfinished, seed, losses, c.snapshotter)
}

// crash is a daemon that holds a signed image and is killed while it pulls another.
type crash struct {
	t        *testing.T
	rng      *rand.Rand
	reg      *registries.Registry
	d        *daemon.Daemon
	image    string          // is pulled
	signed   string          // is there
	whole    []digest.Digest // of image, and its referrers
	kept     []digest.Digest // of signed, and its referrers
	requests int             // of one pull
	events   int             // of its progress
	took     time.Duration

	snapshotter int // pulls that containerd's snapshotter failed
}

func newCrash(t *testing.T, seed int) *crash {
	f := loadFixture(t)
	c := &crash{t: t, rng: rand.New(rand.NewPCG(uint64(seed), 0)), reg: startRegistry(t, registries.Olareg)}
	c.image, c.signed = c.reg.Host+"/app:v1", c.reg.Host+"/kept:v1"
	wholeFixture(f, t, c.reg)
	// Large enough to be cut in its middle.
	_, large := attach(t, c.reg, "app", f.Get(fixture.Image), "application/spdx+json", bytes.Repeat([]byte("large"), 200_000))
	c.whole = append([]digest.Digest{f.Get(fixture.Image).Digest}, large...)
	for _, name := range []string{fixture.AMD64, fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.SBOMSignature, fixture.VEX} {
		c.whole = append(c.whole, f.Content(name)...)
	}
	kept := pushSmall(t, c.reg, "kept", "v1", "kept")
	_, signature := attach(t, c.reg, "kept", kept.Descriptor, "application/vnd.cncf.notary.signature", []byte("its signature"))
	c.kept = append(kept.content, signature...)

	c.d = startDaemon(t, active(everything))
	c.pull(c.signed, nil)
	if lost := damaged(t, c.d, c.kept); len(lost) > 0 {
		t.Fatalf("the signed image is not stored before the first kill: %v", lost)
	}
	// One pull that is not killed is the measure.
	c.reg.Reset()
	began := time.Now()
	c.pull(c.image, func(transfer.Progress) { c.events++ })
	c.took = time.Since(began)
	c.requests = len(c.reg.Requests())
	if wrong := c.recover(); len(wrong) > 0 {
		t.Fatalf("a pull that is not killed: %s", strings.Join(wrong, "; "))
	}
	return c
}

func (c *crash) pull(ref string, progress transfer.ProgressFunc) {
	c.t.Helper()
	if err := unpackedPull(testContext(c.t), c.d.Client, ref, progress); err != nil {
		c.t.Fatal(err)
	}
}

// unpackedPull is a pull as ctr makes it.
func unpackedPull(ctx context.Context, client *containerd.Client, ref string, progress transfer.ProgressFunc) error {
	src, err := source.New(ctx, ref, source.WithRegistry(registry.WithDefaultScheme("http")))
	if err != nil {
		return err
	}
	var opts []transfer.Opt
	if progress != nil {
		opts = append(opts, transfer.WithProgress(progress))
	}
	return client.Transfer(ctx, src, image.NewStore(ref, image.WithPlatforms(amd64), image.WithUnpack(amd64, "")), opts...)
}

// strike pulls, kills the daemon at the point and starts it again. The error is the
// pull's.
func (c *crash) strike(p point) error {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(testContext(c.t), time.Minute)
	defer cancel()
	reached, killed, pulled := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	progress := p.arm(c, reached, killed)
	client, ref := c.d.Client, c.image
	if c.rng.IntN(5) == 0 {
		ref = c.signed // an image that is there is touched as well
	}
	go func() { pulled <- unpackedPull(ctx, client, ref, progress) }()
	var err error
	select {
	case <-reached:
		c.kill()
		err = <-pulled
	case err = <-pulled: // before its point
		c.kill()
	}
	close(killed)
	c.reg.Fail(nil)
	if err := c.d.Restart(testContext(c.t)); err != nil {
		c.t.Fatalf("start after %s: %v", p.name, err)
	}
	return err
}

func (c *crash) kill() {
	c.t.Helper()
	if err := c.d.Kill(); err != nil {
		c.t.Error(err)
	}
}

// ruins says what is wrong with what a kill left.
func (c *crash) ruins() (wrong []string) {
	c.t.Helper()
	left, err := c.d.Client.LeasesService().List(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, l := range left {
		expires, err := time.Parse(time.RFC3339, l.Labels[leaseExpires])
		if err != nil || expires.After(l.CreatedAt.Add(24*time.Hour+time.Minute)) {
			wrong = append(wrong, fmt.Sprintf("lease %s stays for good, its labels are %v", l.ID, l.Labels))
		}
	}
	collect(c.t, c.d)
	if lost := damaged(c.t, c.d, c.kept); len(lost) > 0 {
		wrong = append(wrong, fmt.Sprintf("lost of what was stored before: %v", lost))
	}
	return wrong
}

// leaseExpires is the label by which the collector ends a lease.
const leaseExpires = "containerd.io/gc.expire"

// recover pulls once more and removes the image again; it says what is wrong.
func (c *crash) recover() (wrong []string) {
	c.t.Helper()
	err := unpackedPull(testContext(c.t), c.d.Client, c.image, nil)
	if err != nil && strings.Contains(err.Error(), "failed to prepare extraction snapshot") && strings.Contains(err.Error(), "file exists") {
		// containerd's own: its overlayfs snapshotter renames a snapshot's
		// directory within the transaction that a kill undoes. The first to be
		// given the same number fails, and removes it.
		c.snapshotter++
		err = unpackedPull(testContext(c.t), c.d.Client, c.image, nil)
	}
	if err != nil {
		return []string{fmt.Sprintf("the next pull failed: %v", err)}
	}
	c.expire()
	collect(c.t, c.d)
	if lost := damaged(c.t, c.d, c.whole); len(lost) > 0 {
		wrong = append(wrong, fmt.Sprintf("not brought by the next pull: %v", lost))
	}
	if lost := damaged(c.t, c.d, c.kept); len(lost) > 0 {
		wrong = append(wrong, fmt.Sprintf("lost of what was stored before: %v", lost))
	}
	statuses, err := c.d.Client.ContentStore().ListStatuses(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, s := range statuses {
		wrong = append(wrong, fmt.Sprintf("ingest %s stays at %d of %d bytes", s.Ref, s.Offset, s.Total))
	}
	c.clear()
	have := contents(c.t, c.d)
	slices.Sort(have)
	want := slices.Clone(c.kept)
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(have, want) {
		wrong = append(wrong, fmt.Sprintf("content after the image was removed: %v, want %v", have, want))
	}
	return wrong
}

// expire ends the leases of killed pulls, as a day does.
func (c *crash) expire() {
	c.t.Helper()
	ctx := testContext(c.t)
	left, err := c.d.Client.LeasesService().List(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, l := range left {
		if err := c.d.Client.LeasesService().Delete(ctx, leases.Lease{ID: l.ID}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// clear removes the image, and all that killed pulls left of it.
func (c *crash) clear() {
	c.t.Helper()
	c.expire()
	_ = c.d.Client.ImageService().Delete(testContext(c.t), c.image, images.SynchronousDelete()) // if it is there
	collect(c.t, c.d)
}
