package gather

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// A thousand entries for each of many subjects are judged, and not all remembered;
// why a subject cannot be trusted is.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	const entries = 900
	w := newWorld(t)
	subjects := maxTold/entries + 3
	g := New(w.ctx, w.config(policy.Rule{ArtifactTypes: []string{"signatures"}}))
	defer g.Close()
	for i := range subjects {
		subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: 1}
		listed := []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: signature, Digest: digest.FromString("not there"), Size: 1}}
		for j := range entries {
			listed = append(listed, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: spdx, Digest: digest.FromString(fmt.Sprint(i, j)), Size: 1})
		}
		w.list(subject, listed...)
		g.Image(subject)
	}
	out := g.Wait(w.ctx)
	told := 0
	for _, s := range out.Subjects {
		told += len(s.Left) + len(s.known.found)
		if s.Status != discovery.Unknown || len(s.Doubts()) != 1 {
			t.Errorf("%s is %s with doubts %q, want unknown, for the signature that is not there", s.Digest, s.Status, s.Doubts())
		}
		if !strings.HasPrefix(s.Why, "unknown; "+digest.FromString("not there").String()) || !strings.Contains(s.Why, fmt.Sprintf("and %d more", entries+2-6)) {
			t.Errorf("%s: %q does not count the rest", s.Digest, s.Why)
		}
	}
	if most := maxTold + (minDoubts+1)*subjects; told > most || told < maxTold/2 {
		t.Errorf("%d entries are remembered, want %d at most", told, most)
	}
}
