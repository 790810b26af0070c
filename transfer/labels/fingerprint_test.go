package labels

import (
	"maps"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A fingerprint changes with ties and marks, and with nothing else.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	one, two := digest.FromString("one"), digest.FromString("two")
	base := TieLabels(nil, one)
	maps.Copy(base, map[string]string{"containerd.io/distribution.source.example.com": "app"})
	of := func(change func(map[string]string)) uint64 {
		l := maps.Clone(base)
		change(l)
		return Fingerprint(l)
	}
	was := Fingerprint(base)
	if again := Fingerprint(maps.Clone(base)); again != was {
		t.Errorf("the same labels have the fingerprints %d and %d", was, again)
	}
	if got := of(func(l map[string]string) { l["containerd.io/gc.root"] = "now" }); got != was {
		t.Error("a label of others changes it")
	}
	for name, change := range map[string]func(map[string]string){
		"another is tied":  func(l map[string]string) { maps.Copy(l, TieLabels(l, two)) },
		"it is untied":     func(l map[string]string) { clear(l) },
		"it is withdrawn":  func(l map[string]string) { l[Unlisted(one)] = time.Unix(0, 0).Format(time.RFC3339) },
		"another status":   func(l map[string]string) { maps.Copy(l, Checkmark(Truncated, time.Unix(0, 0))) },
		"key is the other": func(l map[string]string) { clear(l); maps.Copy(l, TieLabels(nil, two)) },
	} {
		if of(change) == was {
			t.Errorf("%s: the fingerprint is the same", name)
		}
	}
}
