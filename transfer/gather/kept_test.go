package gather

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// writes counts the ingests that are opened.
type writes struct {
	content.Store
	n atomic.Int32
}

func (s *writes) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	s.n.Add(1)
	return s.Store.Writer(ctx, opts...)
}

// protecting has the gather put subjects under the lease of its context.
func (w *world) protecting(protected *[]digest.Digest) func(*Config) {
	manager := metadata.NewLeaseManager(w.db)
	return func(c *Config) {
		c.Protect = func(ctx context.Context, dgst digest.Digest) error {
			*protected = append(*protected, dgst)
			id, _ := leases.FromContext(ctx)
			return manager.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: dgst.String(), Type: "content"})
		}
	}
}

// A pull of what is stored and tied opens no ingest, and holds all of it under its lease by
// the image alone; what is damaged or lacks a label is written as ever.
func TestTiedReferrersAreNotWrittenAgain(t *testing.T) {
	all := policy.Rule{ArtifactTypes: []string{policy.SetAll}, Depth: 2}
	w := newWorld(t)
	blob, other := w.serve("sbom"), w.serve("signed")
	sbom := w.artifact(spdx, &w.subject, blob)
	sig := w.artifact(signature, &sbom, other)
	w.list(w.subject, sbom)
	w.list(sbom, sig)
	w.list(sig)
	w.gather(all)

	again := func(what string, ingests int32, leased digest.Digest) {
		t.Helper()
		w.ctx = storetest.Leased(w.ctx, t, w.db)
		store, protected := &writes{Store: w.store}, []digest.Digest(nil)
		out, _ := w.gather(all, w.protecting(&protected), func(c *Config) { c.Store = store })
		w.wantStatus(out, labels.Present)
		w.wantTied(w.subject, sbom)
		w.wantTied(sbom, sig)
		if n := store.n.Load(); n != ingests {
			t.Errorf("%s: %d ingests were opened, want %d", what, n, ingests)
		}
		if len(protected) != 1 || protected[0] != leased {
			t.Errorf("%s: under the lease are %v, want %s", what, protected, leased)
		}
		// The lease alone keeps it: nothing roots the image here.
		if _, err := w.db.GarbageCollect(w.ctx); err != nil {
			t.Fatal(err)
		}
		for _, dgst := range []digest.Digest{w.subject.Digest, sbom.Digest, blob.Digest, sig.Digest, other.Digest} {
			if _, err := w.store.Info(w.ctx, dgst); err != nil {
				t.Errorf("%s: after a collection: %v", what, err)
			}
		}
	}
	leases := metadata.NewLeaseManager(w.db)
	first, err := leases.List(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	again("as it was", 0, w.subject.Digest)
	for _, l := range first { // of the first pull
		if err := leases.Delete(w.ctx, l); err != nil {
			t.Fatal(err)
		}
	}
	again("under its own lease", 0, w.subject.Digest)
	if err := w.store.Delete(w.ctx, blob.Digest); err != nil {
		t.Fatal(err)
	}
	again("without a blob", 1, w.subject.Digest)
	info := content.Info{Digest: sbom.Digest, Labels: map[string]string{labels.SourceKey: ""}}
	if _, err := w.store.Update(w.ctx, info, "labels."+labels.SourceKey); err != nil {
		t.Fatal(err)
	}
	again("without a label", 3, sbom.Digest) // the manifest and what it names; its referrer is kept
}
