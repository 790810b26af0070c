package sigstore

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// keys are the public keys of a trust. Each is tried: the hint in a bundle comes from the network.
type keys []key

// key is a public key and the ways in which it may have signed.
type key struct {
	identity string
	ways     []way
}

// way is one algorithm of a key.
type way struct {
	verifier *verify.Verifier
	// wholeMessage says that the algorithm signs a message and not its digest. With a digest
	// alone it would verify the signature of an empty message: sigstore-go refuses that for
	// the key of a certificate only.
	wholeMessage bool
}

func loadKeys(files []trust.File) (*verifier, error) {
	var all keys
	seen := map[string]bool{}
	for _, file := range files {
		public, err := readKeys(file)
		if err != nil {
			return nil, err
		}
		for _, p := range public {
			k, err := newKey(p)
			if err != nil {
				return nil, refuseFor(file.Path, err, "use another key")
			}
			if !seen[k.identity] { // one key in two files is one identity
				seen[k.identity] = true
				all = append(all, k)
			}
		}
	}
	facts := trust.Facts{Identities: len(all)}
	for _, k := range all {
		facts.Names = append(facts.Names, k.identity)
	}
	return &verifier{signer: all, facts: facts}, nil
}

func newKey(public crypto.PublicKey) (key, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return key{}, err
	}
	k := key{identity: fmt.Sprintf("key sha256:%x", sha256.Sum256(der))}
	verifiers, err := algorithms(public)
	if err != nil {
		return key{}, err
	}
	for _, sv := range verifiers {
		expiring := root.NewExpiringKey(sv, time.Time{}, time.Time{})
		v, err := verify.NewVerifier(root.NewTrustedPublicKeyMaterial(
			func(string) (root.TimeConstrainedVerifier, error) { return expiring, nil },
		), keyOptions()...)
		if err != nil {
			return key{}, err
		}
		_, whole := sv.(*signature.ED25519Verifier)
		k.ways = append(k.ways, way{verifier: v, wholeMessage: whole})
	}
	return k, nil
}

// algorithms are those of sigstore's registry for a key. cosign v2 hashes with SHA-256
// whatever the curve is.
func algorithms(public crypto.PublicKey) (all []signature.Verifier, err error) {
	add := func(v signature.Verifier, e error) {
		all = append(all, v)
		if err == nil {
			err = e
		}
	}
	switch k := public.(type) {
	case ed25519.PublicKey:
		add(signature.LoadED25519Verifier(k))
		add(signature.LoadED25519phVerifier(k))
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P384():
			add(signature.LoadVerifier(k, crypto.SHA384))
		case elliptic.P521():
			add(signature.LoadVerifier(k, crypto.SHA512))
		}
		add(signature.LoadVerifier(k, crypto.SHA256))
	default:
		add(signature.LoadVerifier(k, crypto.SHA256))
	}
	return all, err
}

func (keys) material() material { return byKey }

func (ks keys) authenticate(ctx context.Context, s *signed) (by, error) {
	var last error
	for _, k := range ks {
		for _, w := range k.ways {
			if err := ctx.Err(); err != nil {
				return by{}, err
			}
			if w.wholeMessage && s.digestOnly && s.entity.signature.MessageSignatureContent() != nil {
				continue
			}
			if _, last = w.verifier.Verify(s.entity, keyPolicy(s)); last == nil {
				return by{identity: k.identity}, nil
			}
		}
	}
	if last == nil {
		return by{}, refuse("an Ed25519 key signs a message and not its digest, which alone is known",
			"sign a statement: cosign v3 does, and cosign attest")
	}
	what, remedy := fmt.Sprintf("none of the trust's %d keys verifies it", len(ks)), "sign with one of them, or add the signer's to the trust's keys"
	if isMismatch(last) {
		return by{}, refuse(what+": another key signed it, or other content", remedy)
	}
	return by{}, refuseFor(what, last, remedy)
}

// isMismatch reports whether sigstore-go says no more than that the signature is not of the key
// over the content, in words that help nobody.
func isMismatch(err error) bool {
	return slices.ContainsFunc([]string{"accepted signatures do not match threshold", "invalid signature", "failed to verify signature"},
		func(text string) bool { return strings.Contains(err.Error(), text) }) &&
		!strings.Contains(err.Error(), "artifact does not match digest")
}
