// Package sigstoretest makes evidence for tests when they run, so that none depends on the
// date: a sigstore instance with its own authorities and log ([Sigstore]), and keys ([Key]).
package sigstoretest

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/go-digest"
)

// SignPredicateType is that of the statements in which cosign v3 signs.
const SignPredicateType = "https://sigstore.dev/cosign/sign/v1"

// The media types of what is made.
const (
	BundleMediaType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	SignatureMediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	EnvelopeMediaType  = "application/vnd.dsse.envelope.v1+json"

	intotoMediaType = "application/vnd.in-toto+json"
)

// Layer is a layer of a manifest in which cosign v1 and v2 keep a signature or an attestation.
type Layer struct {
	MediaType   string
	Data        []byte
	Annotations map[string]string
}

// Payload is a simple-signing payload, as cosign writes it.
func Payload(tb testing.TB, reference string, subject digest.Digest) []byte {
	return marshal(tb, map[string]any{
		"critical": map[string]any{
			"identity": map[string]any{"docker-reference": reference},
			"image":    map[string]any{"docker-manifest-digest": subject},
			"type":     "cosign container image signature",
		},
		"optional": nil,
	})
}

// Statement is an in-toto statement about subject, named name unless that is "".
func Statement(tb testing.TB, name string, subject digest.Digest, predicateType string, predicate any) []byte {
	about := map[string]any{"digest": map[string]any{subject.Algorithm().String(): subject.Encoded()}}
	if name != "" {
		about["name"] = name
	}
	return marshal(tb, map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       []any{about},
		"predicateType": predicateType,
		"predicate":     predicate,
	})
}

func marshal(tb testing.TB, v any) []byte {
	tb.Helper()
	data, err := json.Marshal(v)
	check(tb, err)
	return data
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func must[T any](tb testing.TB) func(T, error) T {
	return func(v T, err error) T {
		tb.Helper()
		check(tb, err)
		return v
	}
}
