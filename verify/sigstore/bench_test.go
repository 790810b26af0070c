package sigstore

import (
	"strings"
	"testing"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

func BenchmarkVerify(b *testing.B) {
	s, k := sigstoretest.New(b), sigstoretest.NewKey(b)
	run := func(name string, v trust.Verifier, e evidence.Evidence) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				accept(b, v, e)
			}
		})
	}
	for _, f := range keyForms(b, k, manifest) {
		run("key/"+f.name, trustKeys(b, k.PEM), f.e)
	}
	for _, f := range identityForms(b, s, manifest, ci, tokens) {
		run("keyless/"+f.name, trustCI(b, s.Root), f.e)
	}
	// Those above have a promise, a proof and a timestamp; evidence of one time costs less.
	promised := func(pb *protobundle.Bundle) { pb.VerificationMaterial.TimestampVerificationData = nil }
	run("keyless/bundle-promise", trustCI(b, s.Root), edited(b, s.Signature(b, subject, ci, tokens), promised))
	layer := layerOf(s.CosignSignature(b, repository, subject, ci, tokens))
	run("keyless/cosign-promise", trustCI(b, s.Root), annotated(layer, timestampAnnotation, ""))
	v2, err := s.CA.AttestHashedRekordV2(ci, tokens, sigstoretest.Statement(b, repository, subject, provenance, predicate))
	if err != nil {
		b.Fatal(err)
	}
	run("keyless/bundle-rekor-v2", trustCI(b, s.Root), bundleOf(marshalled(b, s.Proto(b, v2))))
	// The largest attestation that evidence may be.
	text := strings.Repeat("a", evidence.MaxSize/4*3-6000)
	run("largest/key-bundle", trustKeys(b, k.PEM), largest(b, bundleOf(k.Attestation(b, repository, subject, provenance, text))))
	run("largest/key-layer", trustKeys(b, k.PEM), largest(b, layerOf(k.CosignAttestation(b, repository, subject, provenance, text))))
	run("largest/keyless-bundle", trustCI(b, s.Root), largest(b, bundleOf(s.Attestation(b, repository, subject, ci, tokens, provenance, text))))
	// The same size of many values.
	many := make([]map[string]int, 140000)
	for i := range many {
		many[i] = map[string]int{"name": i, "version": i}
	}
	run("largest/key-bundle-of-values", trustKeys(b, k.PEM), bundleOf(k.Attestation(b, repository, subject, provenance, many)))
}

func largest(b *testing.B, e evidence.Evidence) evidence.Evidence {
	b.Helper()
	if len(e.Data) > evidence.MaxSize || len(e.Data) < evidence.MaxSize*99/100 {
		b.Fatalf("it has %d bytes", len(e.Data))
	}
	return e
}
