package integration

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// Registries lose one of two referrers of a subject that come at the same time; a
// push sends one after the other.
func TestPushSendsReferrersOfASubjectInTurn(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, pushTrue)
	to := startRegistry(t, registry.Olareg)
	var under, most, seen atomic.Int32
	to.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
		for _, name := range []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation} {
			if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, f.Get(name).Digest.String()) {
				continue
			}
			seen.Add(1)
			if n := under.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(50 * time.Millisecond) // in which another would come
			under.Add(-1)
		}
		return false
	})
	if err := pushAs(t, d, image, to.Host+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	if seen.Load() != 3 || most.Load() != 1 {
		t.Errorf("%d of 3 manifests, %d at a time", seen.Load(), most.Load())
	}
}
