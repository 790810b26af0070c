package integration

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	sproxy "github.com/containerd/containerd/v2/core/streaming/proxy"
	"github.com/containerd/containerd/v2/core/transfer/image"
	tproxy "github.com/containerd/containerd/v2/core/transfer/proxy"
	ctransfer "github.com/containerd/containerd/v2/core/transfer/registry"
	bolt "go.etcd.io/bbolt"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// What only a killed pull's lease holds, content and ingests, goes with
// the lease, and that expires by itself: the lease of a client that brings one, as
// containerd's does, and the one that the daemon makes where the client brings none,
// as CRI.
func TestPullThatIsKilledLeavesNoLease(t *testing.T) {
	for name, pull := range map[string]func(context.Context, *containerd.Client, string) error{
		"the client's lease": func(ctx context.Context, client *containerd.Client, ref string) error {
			return unpackedPull(ctx, client, ref, nil)
		},
		"the daemon's lease": pullWithoutLease,
	} {
		t.Run(name, func(t *testing.T) { leaseOfAKilledPullExpires(t, pull) })
	}
}

// pullWithoutLease calls the transfer service past containerd's client, which puts
// a lease of its own around a transfer.
func pullWithoutLease(ctx context.Context, client *containerd.Client, ref string) error {
	src, err := source.New(ctx, ref, source.WithRegistry(ctransfer.WithDefaultScheme("http")))
	if err != nil {
		return err
	}
	streams := sproxy.NewStreamCreator(client.Conn())
	return tproxy.NewTransferrer(client.Conn(), streams).Transfer(ctx, src, image.NewStore(ref, image.WithPlatforms(amd64)))
}

func leaseOfAKilledPullExpires(t *testing.T, pull func(context.Context, *containerd.Client, string) error) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	reached, pulled := make(chan struct{}), make(chan error, 1)
	held := f.Content(fixture.SBOM)[2]
	reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/blobs/"+held.String()) {
			return false
		}
		answer(t, reg, w, r, 50)
		close(reached)
		<-r.Context().Done()
		return true
	})
	client := d.Client
	go func() { pulled <- pull(testContext(t), client, reg.Host+"/app:v1") }()
	<-reached
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-pulled; err == nil {
		t.Error("the pull succeeded without its daemon")
	}
	if err := d.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	collect(t, d)
	left, err := d.Client.LeasesService().List(testContext(t))
	if err != nil || len(left) != 1 {
		t.Fatalf("%d leases, want that of the pull alone: %v", len(left), err)
	}
	expires, err := time.Parse(time.RFC3339, left[0].Labels[leaseExpires])
	if day := expires.Sub(left[0].CreatedAt); err != nil || day < 23*time.Hour || day > 25*time.Hour {
		t.Fatalf("the lease expires %q, a day after %s is wanted", left[0].Labels[leaseExpires], left[0].CreatedAt)
	}
	if have := contents(t, d); !slices.Contains(have, f.Get(fixture.Image).Digest) {
		t.Errorf("the lease holds nothing of the pull: %v", have)
	}

	// A day passes.
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := expireLeases(filepath.Join(d.Root(), "io.containerd.metadata.v1.bolt", "meta.db")); err != nil {
		t.Fatal(err)
	}
	if err := d.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	collect(t, d)
	wantClean(t, d)
	if have := contents(t, d); len(have) > 0 {
		t.Errorf("content stays: %v", have)
	}
}

// expireLeases sets the time that leases expire at into the past, in the database
// of a daemon that does not run. Clients cannot change a lease.
func expireLeases(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	return errors.Join(db.Update(func(tx *bolt.Tx) error {
		all := tx.Bucket([]byte("v1")).Bucket([]byte("default")).Bucket([]byte("leases"))
		return all.ForEachBucket(func(id []byte) error {
			labels := all.Bucket(id).Bucket([]byte("labels"))
			if labels == nil || labels.Get([]byte(leaseExpires)) == nil {
				return errors.New("a lease has no time to expire at")
			}
			return labels.Put([]byte(leaseExpires), []byte(time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)))
		})
	}), db.Close())
}
