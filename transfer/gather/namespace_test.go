package gather

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// elsewhere is the same store, seen from another namespace, under a lease of its own,
// with the subject in it.
func (w *world) elsewhere() *world {
	w.t.Helper()
	ctx := storetest.Leased(namespaces.WithNamespace(w.t.Context(), "elsewhere"), w.t, w.db)
	other := &world{t: w.t, server: w.server, db: w.db, store: w.store, labeler: w.labeler, ctx: ctx}
	other.subject = other.put([]byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[]}`))
	return other
}

// What another namespace holds is taken from the store, manifests as well,
// by many pulls at once; and judged like any other.
func TestReferrerOfAnotherNamespaceIsNotFetched(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	other := w.artifact(spdx, &ocispec.Descriptor{MediaType: sbom.MediaType, Digest: sbom.Digest, Size: sbom.Size}, w.serve("of another subject"))
	w.list(w.subject, sbom)
	w.list(sbom, other)
	w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 2})
	w.wantTied(sbom, other)

	there := w.elsewhere()
	w.list(w.subject, sbom, other)
	manifests, blobs := w.asked("/manifests/sha256:"), w.asked("/blobs/")
	const pulls = 20
	outcomes := make(chan *outcome.Outcome)
	for range pulls {
		go func() {
			g := New(there.ctx, there.config(sboms))
			defer g.Close()
			g.Image(there.subject)
			outcomes <- g.Wait(there.ctx)
		}()
	}
	for range pulls {
		if s := (<-outcomes).Subjects[0]; len(s.Taken) != 1 || s.Taken[0].Digest != sbom.Digest || s.Status != labels.Present {
			t.Errorf("status %s, taken %v: %s", s.Status, s.Taken, s.Why)
		}
	}
	there.gather(sboms)
	there.wantTied(there.subject, sbom)
	if n := w.asked("/blobs/") - blobs; n != 0 {
		t.Errorf("%d requests for blobs that the store holds", n)
	}
	// Manifests are read before they are stored. A pull, and the last is one as well, reads
	// that of the SBOM, and the other for each of the two subjects.
	if n := w.asked("/manifests/sha256:") - manifests; n > 3*(pulls+1) {
		t.Errorf("%d requests for manifests", n)
	}
	// What was not wanted goes with the lease.
	lease, _ := leases.FromContext(there.ctx)
	if err := metadata.NewLeaseManager(w.db).Delete(there.ctx, leases.Lease{ID: lease}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.GarbageCollect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Info(there.ctx, other.Digest); err == nil {
		t.Error("the referrer of another subject stays")
	}
	w.wantTied(w.subject, sbom)
}

// What the disk has lost of a manifest is not parsed, and not called present.
func TestDamagedManifestOfTheStore(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	w.list(w.subject, sbom)
	w.gather(sboms)
	path := filepath.Join(w.dir, "blobs", "sha256", sbom.Digest.Encoded())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	damaged := strings.Replace(string(data), spdx, strings.Repeat(" ", len(spdx)), 1)
	if err := os.WriteFile(path, []byte(damaged), 0o444); err != nil {
		t.Fatal(err)
	}
	out, _ := w.gather(sboms)
	w.wantStatus(out, labels.Unknown)
	if why := out.Subjects[0].Why; !strings.Contains(why, "damaged") || !strings.Contains(why, "ctr content rm") {
		t.Errorf("the reason does not tell: %s", why)
	}
}
