package labels

import (
	"hash/maphash"
	"strings"
)

// own is what the keys of this project begin with.
const own = "transfer-referrers/"

// seed makes fingerprints of this process differ from those of any other.
var seed = maphash.MakeSeed()

// Fingerprint returns a number that changes with what the labels of a subject tie to it and
// say of its referrers. It means something within one process only.
func Fingerprint(labels map[string]string) uint64 {
	var sum uint64
	for key, value := range labels {
		if !strings.HasPrefix(key, referrer) && !strings.HasPrefix(key, own) {
			continue
		}
		var h maphash.Hash
		h.SetSeed(seed)
		_, _ = h.WriteString(key) // maphash fails never
		_ = h.WriteByte(0)
		_, _ = h.WriteString(value)
		sum += h.Sum64() // in any order: a map has none
	}
	return sum
}
