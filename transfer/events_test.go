package transfer

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// The last verdicts are told apart by namespace, name and digest, and are bounded.
func TestLastVerdicts(t *testing.T) {
	var l lastVerdicts
	key := verdictKey{"default", "example.com/app:v1", digest.FromString("a")}
	for i, tc := range []struct {
		key    verdictKey
		result verdict.Result
		want   verdict.Result
	}{
		{key, verdict.Verified, ""},
		{key, verdict.Verified, verdict.Verified},
		{key, verdict.Refused, verdict.Verified},
		{verdictKey{"k8s.io", key.image, key.digest}, verdict.Verified, ""},
		{verdictKey{"default", key.image, digest.FromString("b")}, verdict.Verified, ""},
		{key, verdict.Refused, verdict.Refused},
	} {
		if got := l.replace(tc.key, tc.result); got != tc.want {
			t.Errorf("step %d: the last is %q, want %q", i, got, tc.want)
		}
	}
	for i := range 2 * maxLastVerdicts {
		l.replace(verdictKey{image: fmt.Sprint(i)}, verdict.Refused)
	}
	if len(l.results) != maxLastVerdicts {
		t.Errorf("%d verdicts are remembered, over the limit of %d", len(l.results), maxLastVerdicts)
	}
}
