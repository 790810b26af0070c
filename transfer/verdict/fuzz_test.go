package verdict_test

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// FuzzVerdict holds the verdict against what it means: an image is verified if and only if
// enough different identities of a trust that is named signed it, on the manifest or above.
// Each byte of the input is a piece of evidence.
func FuzzVerdict(f *testing.F) {
	f.Add([]byte{0}, uint8(1))
	f.Add([]byte{0x00, 0x41, 0x11, 0x85}, uint8(2))
	f.Add([]byte{}, uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, atLeast uint8) {
		need := int(atLeast%4) + 1
		s := selection(t, policy.Rule{Signed: []policy.Signed{{By: []string{"release", "ci"}, AtLeast: need}}})
		subjects := []digest.Digest{amd64, index, arm64, other}
		trusts := []string{"release", "ci", "stranger", "release"}
		var pieces []piece
		counted := map[string]bool{}
		for _, b := range data {
			subject, trust, identity := subjects[b&3], trusts[b>>2&3], fmt.Sprint("identity ", b>>4&3)
			switch b >> 6 {
			case 0: // a signature
				pieces = append(pieces, piece{subject: subject, proofs: []verdict.Proof{by(trust, identity)}})
				if (subject == amd64 || subject == index) && trust != "stranger" {
					counted[identity] = true
				}
			case 1: // one that is not valid
				pieces = append(pieces, piece{subject: subject, proofs: []verdict.Proof{{Trust: trust, Why: "no"}}})
			case 2: // an attestation
				pieces = append(pieces, piece{subject: subject, proofs: []verdict.Proof{attests(trust, identity, provenance, "{}")}})
			default: // valid by one trust, and not by another
				pieces = append(pieces, piece{subject: subject, proofs: []verdict.Proof{{Trust: "ci", Why: "no"}, by(trust, identity)}})
				if (subject == amd64 || subject == index) && trust != "stranger" {
					counted[identity] = true
				}
			}
		}
		v := judged(s, pieces, verdict.Manifest{Digest: amd64, Above: []digest.Digest{index}})
		if want := len(counted) >= need; (v.Result == verdict.Verified) != want {
			t.Errorf("%s, and %d identities of %d count", v.Result, len(counted), need)
		}
		if n := len(v.Manifests[0].Needs[0].Identities); n != len(counted) {
			t.Errorf("%d identities are named, want %d", n, len(counted))
		}
		for _, e := range v.Evidence {
			if len(e.Reasons) == 0 {
				t.Errorf("%+v has no reason", e)
			}
		}
	})
}
