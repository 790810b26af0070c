package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

const minRSABits, maxRSABits = 2048, 8192

// readKeys reads a file of public keys, PEM, with nothing between and behind them: pem.Decode
// passes over what it cannot read, and a key that is passed over is one less to trust.
func readKeys(file trust.File) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	rest := bytes.TrimSpace(file.Data)
	if len(rest) == 0 {
		return nil, refuse(file.Path+" is empty", "write a public key into it: cosign public-key --key …")
	}
	for n := 1; len(rest) > 0; n++ {
		block, after := pem.Decode(rest)
		if block == nil || !bytes.HasPrefix(rest, []byte("-----BEGIN")) ||
			bytes.Count(rest[:len(rest)-len(after)], []byte("-----BEGIN")) != 1 {
			return nil, refuse(fmt.Sprintf("%s has something that is no PEM where its block %d should begin", file.Path, n),
				"leave nothing in it but blocks of -----BEGIN PUBLIC KEY-----")
		}
		key, err := readKey(block)
		if err != nil {
			return nil, fmt.Errorf("%s, block %d: %w", file.Path, n, err)
		}
		keys = append(keys, key)
		rest = bytes.TrimSpace(after)
	}
	return keys, nil
}

func readKey(block *pem.Block) (crypto.PublicKey, error) {
	switch {
	case block.Type == "PUBLIC KEY":
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, refuse("it is a private key, which belongs on no node",
			"write the public one: cosign public-key --key …, or openssl pkey -pubout -in …")
	case block.Type == "CERTIFICATE":
		return nil, refuse("it is a certificate, whose name and dates a key has not",
			"write its key, if that is trusted: openssl x509 -pubkey -noout -in …")
	case block.Type == "RSA PUBLIC KEY":
		return nil, refuse("it is a key in the form PKCS #1", "write it in PKIX: openssl rsa -RSAPublicKey_in -pubout -in …")
	default:
		return nil, refuse(fmt.Sprintf("it is %s", cut(block.Type)), "write a PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, refuseFor("it is no public key", err, "write it again: cosign public-key --key …")
	}
	return key, checkKey(key)
}

// checkKey refuses keys that cosign does not sign with, or that are too weak.
func checkKey(key crypto.PublicKey) error {
	const remedy = "use ECDSA P-256, P-384 or P-521, Ed25519, or RSA of 2048 to 8192 bits"
	switch key := key.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return refuse("it is an ECDSA key of the curve "+key.Curve.Params().Name, remedy)
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return refuse(fmt.Sprintf("it is an RSA key of %d bits", bits), remedy)
		}
		return nil
	}
	return refuse(fmt.Sprintf("it is a key of type %T", key), remedy)
}
