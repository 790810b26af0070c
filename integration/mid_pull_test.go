package integration

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	sproxy "github.com/containerd/containerd/v2/core/streaming/proxy"
	tproxy "github.com/containerd/containerd/v2/core/transfer/proxy"
	ctransfer "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// fetchWithoutLease is `ctr referrers fetch`, past containerd's client and its lease.
func fetchWithoutLease(ctx context.Context, client *containerd.Client, ref string) error {
	src, err := source.New(ctx, ref, source.WithRegistry(ctransfer.WithDefaultScheme("http")))
	if err != nil {
		return err
	}
	dst := explain.NewFetch()
	if err := tproxy.NewTransferrer(client.Conn(), sproxy.NewStreamCreator(client.Conn())).Transfer(ctx, src, dst); err != nil {
		return err
	}
	_, err = dst.Explanation(ctx)
	return err
}

// A collection in the middle of a transfer takes nothing of what has come in, even
// where the client brings no lease, as CRI does not.
func TestCollectionInMidTransfer(t *testing.T) {
	f := loadFixture(t)
	for name, transfer := range map[string]func(context.Context, *containerd.Client, string) error{
		"pull":  pullWithoutLease,
		"fetch": fetchWithoutLease,
	} {
		t.Run(name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			imageAlone(f, t, reg)
			d := startDaemon(t, active(everything))
			image := reg.Host + "/app:v1"
			if name == "fetch" {
				pull(t, d, image)
			}
			if err := f.PushReferrers(testContext(t), reg, "app"); err != nil {
				t.Fatal(err)
			}
			held, release := f.Content(fixture.SBOM)[2], make(chan struct{})
			reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/blobs/"+held.String()) {
					select {
					case <-release:
					case <-r.Context().Done():
					}
				}
				return false
			})
			done := make(chan error, 1)
			ref := image
			if name == "fetch" { // is of what is stored
				ref += "@" + f.Get(fixture.Image).Digest.String()
			}
			go func() { done <- transfer(testContext(t), d.Client, ref) }()
			came := f.Content(fixture.SBOM)[:1] // its manifest
			for _, name := range []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.VEX} {
				came = append(came, f.Content(name)...)
			}
			missing := func(dgst digest.Digest) bool { return !slices.Contains(contents(t, d), dgst) }
			for slices.ContainsFunc(came, missing) {
				select {
				case err := <-done:
					t.Fatalf("the transfer ended: %v", err)
				case <-time.After(20 * time.Millisecond):
				}
			}
			before := contents(t, d)
			collect(t, d)
			after := contents(t, d)
			for _, dgst := range before {
				if !slices.Contains(after, dgst) {
					t.Errorf("a collection took %s (%s) from a transfer that goes on", dgst, f.Name(dgst))
				}
			}
			close(release)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			wantKept(t, f, d, image, onEverything...)
			wantClean(t, d)
		})
	}
}
