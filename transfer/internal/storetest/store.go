// Package storetest makes a real content store for tests: containerd's metadata
// database over its local store, in a temporary directory, without a daemon.
package storetest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/log"
	bolt "go.etcd.io/bbolt"
)

// New returns a database whose ContentStore is empty. It ends with the test.
func New(t testing.TB) *metadata.DB { return NewAt(t, t.TempDir()) }

// NewAt is New in a directory of the test's: content lies in blobs below it.
func NewAt(t testing.TB, dir string) *metadata.DB {
	t.Helper()
	_ = log.SetLevel("error") // the store warns of every temporary directory
	backend, err := local.NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	m := metadata.NewDB(db, backend, nil)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// Transaction returns what has the database's stores write in one transaction, as the plugin
// does.
func Transaction(db *metadata.DB) func(context.Context, func(context.Context) error) error {
	return func(ctx context.Context, f func(context.Context) error) error {
		return db.Update(func(tx *bolt.Tx) error { return f(boltutil.WithTransaction(ctx, tx)) })
	}
}

// Leased returns the context with a new lease of its namespace, as a pull has one.
func Leased(ctx context.Context, t testing.TB, db *metadata.DB) context.Context {
	t.Helper()
	lease, err := metadata.NewLeaseManager(db).Create(ctx, leases.WithRandomID())
	if err != nil {
		t.Fatal(err)
	}
	return leases.WithLease(ctx, lease.ID)
}
