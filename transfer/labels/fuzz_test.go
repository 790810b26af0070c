package labels

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// FuzzTie makes digests of few beginnings, so that most of them collide. Each
// byte is one referrer; those of before are tied already, some under containerd's
// own key and some under the whole digest.
func FuzzTie(f *testing.F) {
	f.Add([]byte{}, []byte{0, 4, 8})
	f.Add([]byte{4}, []byte{0, 4})
	f.Add([]byte{0x81, 0x84}, []byte{1, 0, 4, 5})
	f.Add([]byte{0x40}, []byte{0, 0x40})
	f.Fuzz(func(t *testing.T, before, now []byte) {
		labels, want := map[string]string{"a": "b"}, map[digest.Digest]bool{}
		for _, b := range before {
			dgst := colliding(b & 0x7f)
			k := referrer + dgst.Encoded()
			if b&0x80 == 0 {
				k = referrer + dgst.Encoded()[:short] // the last one wins, as with containerd's client
			}
			labels[k] = dgst.String()
		}
		for _, dgst := range Referrers(labels) {
			want[dgst] = true
		}
		var referrers []digest.Digest
		for _, b := range now {
			referrers = append(referrers, colliding(b&0x7f))
			want[colliding(b&0x7f)] = true
		}
		for range 2 { // a second pull finds the same
			add := TieLabels(labels, referrers...)
			for k, v := range add {
				if !strings.HasPrefix(k, referrer) {
					t.Errorf("key %q", k)
				}
				if old := labels[k]; old != "" && old != v {
					t.Errorf("%s tied %s, now %s", k, old, v)
				}
			}
			maps.Copy(labels, add)
		}
		got := map[digest.Digest]bool{}
		for _, dgst := range Referrers(labels) {
			got[dgst] = true
		}
		if !maps.Equal(got, want) {
			t.Errorf("tied %v, want %v", got, want)
		}
	})
}

// colliding makes a digest of one of four beginnings; one bit tells its algorithm.
func colliding(b byte) digest.Digest {
	algorithm, length := digest.SHA256, 64
	if b&0x40 != 0 {
		algorithm, length = digest.SHA512, 128
	}
	encoded := fmt.Sprintf("%012x", b&3)
	return digest.NewDigestFromEncoded(algorithm, encoded+strings.Repeat(fmt.Sprintf("%x", b>>2&0xf), length-len(encoded)))
}
