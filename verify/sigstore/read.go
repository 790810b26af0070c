package sigstore

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// material is what a trust wants a signature to be made with.
type material int

const (
	byKey material = iota
	byCertificate
)

// signed is evidence as sigstore-go verifies it, and what it says if it does.
type signed struct {
	entity *entity
	// artifact makes the option that names what must be signed, for one verification.
	artifact func() verify.ArtifactPolicyOption
	// digestOnly says that the artifact's bytes are not at hand, only their digest.
	digestOnly bool
	claim      claim
}

// read reads evidence for a trust of the material. The layers of cosign v1 and v2 do not say
// whether a key or a certificate is meant: the trust does.
func read(e evidence.Evidence, m material) (*signed, error) {
	if len(e.Data) > evidence.MaxSize {
		return nil, tooMany("bytes of evidence", len(e.Data), evidence.MaxSize)
	}
	switch e.Format {
	case evidence.Bundle:
		return readBundle(e, m)
	case evidence.CosignSignature:
		return readCosignSignature(e, m)
	case evidence.DSSE:
		return readCosignAttestation(e, m)
	default:
		return nil, fmt.Errorf("evidence of the format %s: %w", cut(string(e.Format)), errdefs.ErrNotImplemented)
	}
}
