package sigstore

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

const (
	ci         = "https://git.example.com/org/app/.ci.yml@refs/tags/v1"
	tokens     = "https://token.example.com"
	repository = "registry.example.com/app"
	provenance = "https://slsa.dev/provenance/v1"
)

var (
	manifest  = []byte(`{"schemaVersion":2}`)
	subject   = digest.FromBytes(manifest)
	sibling   = digest.FromString("sibling")
	predicate = map[string]any{"builder": "b", "n": []any{1, 2}}
)

func loaded(tb testing.TB, config trust.Config, files ...[]byte) trust.Verifier {
	tb.Helper()
	v, err := load(config, files...)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func load(config trust.Config, files ...[]byte) (trust.Verifier, error) {
	var read []trust.File
	for i, data := range files {
		read = append(read, trust.File{Path: "/etc/trust/" + string(rune('a'+i)), Data: data})
	}
	return (&Loader{}).Load(config, read)
}

func trustKeys(tb testing.TB, files ...[]byte) trust.Verifier {
	tb.Helper()
	return loaded(tb, trust.Config{Keys: make([]string, len(files))}, files...)
}

func trustCI(tb testing.TB, roots ...[]byte) trust.Verifier {
	tb.Helper()
	return loaded(tb, rootConfig(trust.Identity{Issuer: tokens, Subject: ci}), roots...)
}

func rootConfig(ids ...trust.Identity) trust.Config {
	return trust.Config{TrustedRoot: []string{"/etc/trust/a"}, Identities: ids}
}

func bundleOf(data []byte) evidence.Evidence {
	return evidence.Evidence{Format: evidence.Bundle, Subject: ocispec.Descriptor{Digest: subject}, Data: data}
}

func layerOf(l sigstoretest.Layer) evidence.Evidence {
	format := evidence.CosignSignature
	if l.MediaType == sigstoretest.EnvelopeMediaType {
		format = evidence.DSSE
	}
	return evidence.Evidence{Format: format, Subject: ocispec.Descriptor{Digest: subject}, MediaType: l.MediaType, Data: l.Data, Annotations: l.Annotations}
}

// form is one way to write evidence.
type form struct {
	name string
	kind evidence.Kind
	e    evidence.Evidence
}

func keyForms(tb testing.TB, k *sigstoretest.Key, of []byte) []form {
	d := digest.FromBytes(of)
	return []form{
		{"bundle-signature", evidence.Signature, bundleOf(k.Signature(tb, d))},
		{"bundle-message", evidence.Signature, bundleOf(k.MessageSignature(tb, of))},
		{"bundle-attestation", evidence.Attestation, bundleOf(k.Attestation(tb, repository, d, provenance, predicate))},
		{"cosign-signature", evidence.Signature, layerOf(k.CosignSignature(tb, repository, d))},
		{"cosign-attestation", evidence.Attestation, layerOf(k.CosignAttestation(tb, repository, d, provenance, predicate))},
	}
}

func identityForms(tb testing.TB, s *sigstoretest.Sigstore, of []byte, identity, issuer string) []form {
	d := digest.FromBytes(of)
	return []form{
		{"bundle-signature", evidence.Signature, bundleOf(s.Signature(tb, d, identity, issuer))},
		{"bundle-message", evidence.Signature, bundleOf(s.MessageSignature(tb, of, identity, issuer))},
		{"bundle-attestation", evidence.Attestation, bundleOf(s.Attestation(tb, repository, d, identity, issuer, provenance, predicate))},
		{"cosign-signature", evidence.Signature, layerOf(s.CosignSignature(tb, repository, d, identity, issuer))},
		{"cosign-attestation", evidence.Attestation, layerOf(s.CosignAttestation(tb, repository, d, identity, issuer, provenance, predicate))},
	}
}

// edited is a bundle that somebody has changed on its way.
func edited(tb testing.TB, data []byte, change func(*protobundle.Bundle)) evidence.Evidence {
	tb.Helper()
	pb := proto(tb, data)
	change(pb)
	return bundleOf(marshalled(tb, pb))
}

func proto(tb testing.TB, data []byte) *protobundle.Bundle {
	tb.Helper()
	pb := &protobundle.Bundle{}
	if err := protojson.Unmarshal(data, pb); err != nil {
		tb.Fatal(err)
	}
	return pb
}

func marshalled(tb testing.TB, pb *protobundle.Bundle) []byte {
	tb.Helper()
	data, err := protojson.Marshal(pb)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func annotated(e evidence.Evidence, key, value string) evidence.Evidence {
	annotations := map[string]string{}
	for k, v := range e.Annotations {
		annotations[k] = v
	}
	annotations[key] = value
	if value == "" {
		delete(annotations, key)
	}
	e.Annotations = annotations
	return e
}

func accept(tb testing.TB, v trust.Verifier, e evidence.Evidence) evidence.Verified {
	tb.Helper()
	got, err := v.Verify(tb.Context(), e)
	if err != nil {
		tb.Fatalf("it must be accepted: %v", err)
	}
	return got
}

// reject demands a refusal that says why, of the kind that the interface promises.
func reject(tb testing.TB, v trust.Verifier, e evidence.Evidence, why string) {
	tb.Helper()
	got, err := v.Verify(tb.Context(), e)
	switch {
	case err == nil:
		tb.Fatalf("it is accepted: a %s by %s", got.Kind, got.Identity)
	case !strings.Contains(err.Error(), why):
		tb.Fatalf("it is refused for another reason than %q: %v", why, err)
	case !errors.Is(err, errdefs.ErrInvalidArgument):
		tb.Fatalf("the error is of another kind: %v", err)
	case len(err.Error()) > 900:
		tb.Fatalf("the error has %d bytes: %v", len(err.Error()), err)
	}
	if got.Identity != "" || got.Kind != "" || got.Predicate != nil {
		tb.Fatalf("what is refused says something: a %s by %s", got.Kind, got.Identity)
	}
}
