package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// A subject with a hundred referrers, each with one of its own, costs a pull again one
// listing for each, all of them asked for while the tag is resolved: a round trip, and
// not a hundred.
func TestPullAgainWithManyReferrers(t *testing.T) {
	const referrers, late = 100, 20 * time.Millisecond
	reg := startRegistry(t, registry.Olareg, registry.WithDelay(late))
	ctx := testContext(t)
	for repository, n := range map[string]int{"many": referrers, "none": 0} {
		image := pushSmall(t, reg, repository, "v1", repository)
		for i := range n {
			sbom, err := reg.Attach(ctx, repository, image.Descriptor, "application/spdx+json", nil, fmt.Appendf(nil, "sbom %d", i))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := reg.Attach(ctx, repository, sbom, "application/vnd.cncf.notary.signature", nil, fmt.Appendf(nil, "signature %d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := startDaemon(t, active("cosign_tags = \"never\"\n"+everything))
	quickest, whole := map[string]time.Duration{}, map[string]time.Duration{}
	for _, repository := range []string{"many", "none"} {
		ref := reg.Host + "/" + repository + ":v1"
		pull(t, d, ref, "--plain-http")
		for range 5 {
			reg.Reset()
			began := time.Now()
			pull(t, d, ref, "--plain-http")
			if took := time.Since(began); whole[repository] == 0 || took < whole[repository] {
				whole[repository] = took
			}
			first, last := span(reg.Requests())
			if took := last.Sub(first); quickest[repository] == 0 || took < quickest[repository] {
				quickest[repository] = took
			}
		}
	}
	if n := len(ls(t, d, reg.Host+"/many:v1").Referrers); n != referrers {
		t.Errorf("%d referrers are stored, want %d", n, referrers)
	}
	t.Logf("a pull again takes %v with %d referrers and %v without; its requests, first to last, %v and %v", whole["many"], referrers, whole["none"], quickest["many"], quickest["none"])

	reg.Reset()
	pull(t, d, reg.Host+"/many:v1", "--plain-http")
	paths := map[string]int{}
	for _, r := range reg.Requests() {
		what := r.Method + " " + r.Path
		paths[what]++
		if paths[what] > 1 || r.Method != "HEAD" && !strings.Contains(r.Path, "/referrers/") {
			t.Errorf("%d of %s", paths[what], what)
		}
	}
	if n := reg.Count("/referrers/"); n != 1+referrers || len(reg.Requests()) != 1+n {
		t.Errorf("%d requests, %d of them listings, want %d listings and the image's own", len(reg.Requests()), n, 1+referrers)
	}
}

// span is from when the first of the requests came to when the last was answered.
func span(requests []registry.Request) (first, last time.Time) {
	for _, r := range requests {
		if first.IsZero() || r.Start.Before(first) {
			first = r.Start
		}
		if r.End.After(last) {
			last = r.End
		}
	}
	return first, last
}
