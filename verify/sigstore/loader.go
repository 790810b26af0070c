// Package sigstore verifies signatures and attestations of sigstore: by public keys, and by
// certificates that a sigstore instance issues to identities (keyless). It reads bundles v0.1 to
// v0.3, and the layers of cosign v1 and v2: simple-signing payloads and DSSE envelopes.
//
// Evidence is read into a [claim], what the signed bytes say, and a signed entity of
// sigstore-go; only an entity that verifies makes a claim an [evidence.Verified]. All
// cryptography is that of sigstore-go, whose options are chosen in one place, options.go.
//
// Nothing here opens a file or asks a network.
package sigstore

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

func init() {
	registry.Register(&plugin.Registration{
		Type:   trust.VerifierPlugin,
		ID:     "sigstore",
		InitFn: func(*plugin.InitContext) (any, error) { return &Loader{}, nil },
	})
}

// Loader makes verifiers of keys and of trusted roots. The zero value is ready.
type Loader struct {
	now func() time.Time // nil for the clock; only whether a file has expired asks it
}

var _ trust.Loader = (*Loader)(nil)

// Kinds are those of trusts that it makes verifiers of.
func (*Loader) Kinds() []trust.Kind { return []trust.Kind{trust.Keys, trust.TrustedRoot} }

// Load makes a verifier of config's keys or trusted roots. The error names the file and what
// to write instead; it is errdefs.ErrInvalidArgument.
func (l *Loader) Load(config trust.Config, files []trust.File) (trust.Verifier, error) {
	if len(files) == 0 {
		return nil, refuse("the trust has no file", "name at least one")
	}
	switch kind := config.Kind(); kind {
	case trust.Keys:
		return loadKeys(files)
	case trust.TrustedRoot:
		now := time.Now
		if l.now != nil {
			now = l.now
		}
		return loadRoots(config.Identities, files, now())
	default:
		return nil, fmt.Errorf("a trust of kind %q is not sigstore's: %w", kind, errdefs.ErrInvalidArgument)
	}
}

// signer says who made a signature, out of those that one trust accepts.
type signer interface {
	// material is what must have signed, and read makes entities of.
	material() material
	// authenticate verifies the entity's signature, log entries and timestamps, and that they
	// are about its artifact.
	authenticate(ctx context.Context, s *signed) (by, error)
}

// by says who signed, and when a log or an authority of the trust saw it.
type by struct {
	identity string
	time     time.Time
	notes    []string
}

// verifier is a trust that has been loaded.
type verifier struct {
	signer signer
	facts  trust.Facts
}

var _ trust.Verifier = (*verifier)(nil)

func (v *verifier) Facts() trust.Facts { return v.facts }

func (v *verifier) Verify(ctx context.Context, e evidence.Evidence) (evidence.Verified, error) {
	s, err := read(e, v.signer.material())
	if err != nil {
		return evidence.Verified{}, err
	}
	who, err := v.signer.authenticate(ctx, s)
	if err != nil {
		return evidence.Verified{}, err
	}
	return evidence.Verified{
		Kind:          s.claim.kind,
		Identity:      who.identity,
		PredicateType: s.claim.predicateType,
		Predicate:     s.claim.predicate,
		Names:         s.claim.names,
		Time:          who.time,
		Notes:         who.notes,
	}, nil
}
