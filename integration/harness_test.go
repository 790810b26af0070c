package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// everything is a rule that takes all there is.
const everything = `
  [[plugins."io.containerd.transfer.v1.referrers".rules]]
    repositories   = ["**"]
    artifact_types = ["all"]
`

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(t.Context(), "default"), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func startRegistry(t *testing.T, kind registry.Kind, opts ...registry.Option) *registry.Registry {
	t.Helper()
	r, err := registry.Start(kind, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func loadFixture(t *testing.T) *fixture.Fixture {
	t.Helper()
	f, err := fixture.Load()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func startDaemon(t *testing.T, config daemon.Config) *daemon.Daemon {
	t.Helper()
	if err := daemon.Root(); err != nil {
		t.Fatal(err)
	}
	d, err := daemon.Start(t.Context(), config)
	if errors.Is(err, daemon.ErrNoMount) {
		t.Skipf("the test needs a file system of its own: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		log := d.Log()
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", tail(log, 60))
		}
		if strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
			t.Errorf("the daemon raced or panicked:\n%s", log)
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// ctr runs ctr, which must succeed, and returns what it printed.
func ctr(t *testing.T, d *daemon.Daemon, args ...string) string {
	t.Helper()
	out, err := d.Ctr(testContext(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// export has ctr write an archive. containerd's client ends without waiting for its
// own copy of what it received, so that on a busy machine the file may lack its end.
func export(t *testing.T, d *daemon.Daemon, path string, args ...string) {
	t.Helper()
	for range 10 {
		ctr(t, d, append([]string{"images", "export"}, args...)...)
		if whole(path) {
			return
		}
	}
	t.Fatalf("ctr writes no whole archive to %s", path)
}

// whole says whether the file is a tar archive with its end, two blocks of zeros.
func whole(path string) bool {
	data, err := os.ReadFile(path)
	return err == nil && len(data) >= 1024 && bytes.Equal(data[len(data)-1024:], make([]byte, 1024))
}

func pull(t *testing.T, d *daemon.Daemon, image string, flags ...string) {
	t.Helper()
	args := append(append([]string{"images", "pull", "--platform", "linux/amd64"}, flags...), image)
	if _, err := d.Ctr(testContext(t), args...); err != nil {
		t.Fatal(err)
	}
}

// ls returns what `ctr referrers ls --format json` prints.
func ls(t *testing.T, d *daemon.Daemon, image string) *stored.Image {
	t.Helper()
	out, err := d.Ctr(testContext(t), "referrers", "ls", "--format", "json", image)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

// names returns the fixture's names of the stored referrers, those of referrers
// as "subject/name", sorted.
func names(f *fixture.Fixture, referrers []stored.Referrer) []string {
	var out []string
	for _, r := range referrers {
		name := f.Name(r.Digest)
		out = append(out, name)
		for _, n := range names(f, r.Referrers) {
			out = append(out, name+"/"+n)
		}
	}
	slices.Sort(out)
	return out
}

func wantNames(t *testing.T, f *fixture.Fixture, read *stored.Image, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := names(f, read.Referrers); !slices.Equal(got, want) {
		t.Errorf("stored referrers of %s:\n got %q\nwant %q", read.Name, got, want)
	}
}

// contents returns the digests of all that is in the daemon's content store.
func contents(t *testing.T, d *daemon.Daemon) []digest.Digest {
	t.Helper()
	var out []digest.Digest
	err := d.Client.ContentStore().Walk(testContext(t), func(info content.Info) error {
		out = append(out, info.Digest)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// collect runs a garbage collection to its end.
func collect(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	collectIn(t, d, "default")
}

// collectIn is collect for a client that lives in another namespace.
func collectIn(t *testing.T, d *daemon.Daemon, namespace string) {
	t.Helper()
	ctx := namespaces.WithNamespace(testContext(t), namespace)
	l, err := d.Client.LeasesService().Create(ctx, leases.WithRandomID())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Client.LeasesService().Delete(ctx, l, leases.SynchronousDelete); err != nil {
		t.Fatal(err)
	}
}

// wantClean fails where a pull left an ingest or a lease.
func wantClean(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	ctx := testContext(t)
	statuses, err := d.Client.ContentStore().ListStatuses(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statuses {
		t.Errorf("ingest %s was left at %d of %d bytes", s.Ref, s.Offset, s.Total)
	}
	left, err := d.Client.LeasesService().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range left {
		t.Errorf("lease %s was left", l.ID)
	}
}

func parse(t *testing.T, out string) *stored.Image {
	t.Helper()
	var read stored.Image
	if err := json.Unmarshal([]byte(out), &read); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return &read
}

func wantError(t *testing.T, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q: %v", text, err)
		}
	}
}

// stock is a daemon whose plugin is inert.
var stock = daemon.Config{}

// active is a daemon whose plugin is active, with TOML in its table.
func active(plugin string) daemon.Config {
	return daemon.Config{Disabled: daemon.Active, Plugin: plugin}
}
