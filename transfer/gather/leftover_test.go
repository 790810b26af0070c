package gather

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// leave leaves an ingest as a daemon does that is killed: written, not committed.
// The size is what its pull expected.
func (w *world) leave(desc ocispec.Descriptor, size int64, data string) {
	w.t.Helper()
	expected := artifact.Plain(desc)
	expected.Size = size
	cw, err := content.OpenWriter(w.ctx, w.store, content.WithRef(remotes.MakeRefKey(w.ctx, artifact.Plain(desc))), content.WithDescriptor(expected))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := cw.Write([]byte(data)); err != nil {
		w.t.Fatal(err)
	}
	if err := cw.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// Whatever a killed pull left of an ingest, the pull after it brings the
// referrer, rather than the one after that.
func TestLeftoverIngestsKeepNoReferrerOut(t *testing.T) {
	const honest = "the honest sbom"
	for name, left := range map[string]struct {
		size int64
		data string
		asks int // for the blob
	}{
		"half":                         {int64(len(honest)), "the hon", 1},
		"whole":                        {int64(len(honest)), honest, 0},
		"wrong bytes of the length":    {int64(len(honest)), "a forged sbom!!", 1},
		"of another size, longer":      {100, strings.Repeat("x", 90), 1},
		"of another size, of the same": {100, honest[:len(honest)-1] + "!", 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			blob := w.serve(honest)
			sbom := w.artifact(spdx, &w.subject, blob)
			w.list(w.subject, sbom)
			w.leave(blob, left.size, left.data)
			out, _ := w.gather(sboms)
			w.wantTied(w.subject, sbom)
			w.wantStatus(out, labels.Present)
			if n := w.asked("/blobs/"); n != left.asks {
				t.Errorf("%d requests for the blob, want %d", n, left.asks)
			}
		})
	}
}

// A manifest that a killed pull received, in part wrong or whole, costs one request, and
// its ingest is committed.
func TestLeftoverManifestsAreVerified(t *testing.T) {
	for _, whole := range []bool{true, false} {
		w := newWorld(t)
		sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
		w.list(w.subject, sbom)
		data, err := w.config(sboms).Repository.Manifest(w.ctx, artifact.Plain(sbom))
		if err != nil {
			t.Fatal(err)
		}
		want := w.asked("/manifests/sha256:") + 1
		if !whole {
			data[0]++
		}
		w.leave(sbom, sbom.Size, string(data))
		w.gather(sboms)
		w.wantTied(w.subject, sbom)
		if got := w.asked("/manifests/sha256:"); got != want {
			t.Errorf("whole is %t: %d requests for the manifest, want %d", whole, got, want)
		}
	}
}
