package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/opencontainers/go-digest"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/testing/data"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// checkSays compares what a form proves with what was signed.
func checkSays(t *testing.T, f form, got evidence.Verified) {
	t.Helper()
	if got.Kind != f.kind {
		t.Errorf("it proves a %s", got.Kind)
	}
	named := f.kind == evidence.Attestation || f.name == "cosign-signature"
	if named != slices.Equal(got.Names, []string{repository}) {
		t.Errorf("the names are %q", got.Names)
	}
	want, _ := json.Marshal(predicate)
	if f.kind == evidence.Signature {
		want = nil
	}
	if !bytes.Equal(got.Predicate, want) || (got.PredicateType == provenance) != (f.kind == evidence.Attestation) {
		t.Errorf("it says %s of the type %q", got.Predicate, got.PredicateType)
	}
}

func TestKeyVerifiesEachForm(t *testing.T) {
	k := sigstoretest.NewKey(t)
	v := trustKeys(t, sigstoretest.NewKey(t).PEM, k.PEM)
	for _, f := range keyForms(t, k, manifest) {
		t.Run(f.name, func(t *testing.T) {
			got := accept(t, v, f.e)
			checkSays(t, f, got)
			if got.Identity != v.Facts().Names[1] || !got.Time.IsZero() {
				t.Errorf("signed by %s at %s", got.Identity, got.Time)
			}
		})
	}
}

func TestIdentityVerifiesEachForm(t *testing.T) {
	s := sigstoretest.New(t)
	v := trustCI(t, s.Root)
	for _, f := range identityForms(t, s, manifest, ci, tokens) {
		t.Run(f.name, func(t *testing.T) {
			got := accept(t, v, f.e)
			checkSays(t, f, got)
			if got.Identity != ci+" (issuer "+tokens+")" || !slices.Equal(v.Facts().Names, []string{got.Identity}) {
				t.Errorf("signed by %s", got.Identity)
			}
			if got.Time.IsZero() {
				t.Error("the time is not told")
			}
		})
	}
}

func TestEachVersionOfTheBundleVerifies(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	for _, mediaType := range []string{
		bundleV01,
		"application/vnd.dev.sigstore.bundle+json;version=0.2",
		"application/vnd.dev.sigstore.bundle+json;version=0.3",
		"application/vnd.dev.sigstore.bundle.v0.3+json",
	} {
		set := func(pb *protobundle.Bundle) { pb.MediaType = mediaType }
		accept(t, trustKeys(t, k.PEM), edited(t, k.Signature(t, subject), set))
		accept(t, trustCI(t, s.Root), edited(t, s.Signature(t, subject, ci, tokens), set))
	}
	reject(t, trustKeys(t, k.PEM), edited(t, k.Signature(t, subject), func(pb *protobundle.Bundle) {
		pb.MediaType = "application/vnd.dev.sigstore.bundle.v0.4+json"
	}), "not yet supported")
}

func signers(t *testing.T) map[string]*sigstoretest.Key {
	t.Helper()
	curve := func(c elliptic.Curve, h crypto.Hash) *sigstoretest.Key {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return sigstoretest.KeyOf(t, k, h)
	}
	bits, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*sigstoretest.Key{
		"P-256":         curve(elliptic.P256(), crypto.SHA256),
		"P-384":         curve(elliptic.P384(), crypto.SHA384),
		"P-384 SHA-256": curve(elliptic.P384(), crypto.SHA256),
		"P-521":         curve(elliptic.P521(), crypto.SHA512),
		"P-521 SHA-256": curve(elliptic.P521(), crypto.SHA256),
		"RSA":           sigstoretest.KeyOf(t, bits, crypto.SHA256),
		"Ed25519":       sigstoretest.KeyOf(t, ed, crypto.SHA512),
	}
}

// The manifest's digest alone is at hand, so that a signature over its bytes must be of that hash.
func TestEachAlgorithmVerifies(t *testing.T) {
	for name, k := range signers(t) {
		t.Run(name, func(t *testing.T) {
			v, other := trustKeys(t, k.PEM), trustKeys(t, sigstoretest.NewKey(t).PEM)
			for _, f := range keyForms(t, k, manifest) {
				reject(t, other, f.e, "none of the trust's 1 keys")
				if f.name == "bundle-message" && (name == "P-384" || name == "P-521" || name == "Ed25519") {
					reject(t, v, f.e, "") // the hash is another, as said above
					continue
				}
				accept(t, v, f.e)
			}
		})
	}
}

// A log of Rekor v1 takes no envelope that is signed with SHA-384, one of v2 does.
func TestCertificateOfAnotherCurveVerifies(t *testing.T) {
	instance, err := ca.NewVirtualSigstoreWithSigningAlg(protocommon.PublicKeyDetails_PKIX_ECDSA_P384_SHA_384)
	if err != nil {
		t.Fatal(err)
	}
	s := &sigstoretest.Sigstore{CA: instance}
	v := trustCI(t, s.RootOf(t, sigstoretest.Parts{}))
	entity, err := instance.AttestHashedRekordV2(ci, tokens, sigstoretest.Statement(t, repository, subject, provenance, predicate))
	if err != nil {
		t.Fatal(err)
	}
	good := marshalled(t, s.Proto(t, entity))
	accept(t, v, bundleOf(good))
	reject(t, v, edited(t, good, func(pb *protobundle.Bundle) { pb.GetDsseEnvelope().Signatures[0].Sig[9] ^= 1 }), "does not vouch")
}

func TestOtherFormatsAreNotOurs(t *testing.T) {
	for _, f := range []evidence.Format{evidence.Notation, evidence.Statement, "new"} {
		_, err := trustKeys(t, sigstoretest.NewKey(t).PEM).Verify(t.Context(), evidence.Evidence{Format: f})
		if !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// The public instance has certificate logs, which the virtual one has not; and its bundle is
// about a sha512.
func TestBundleOfThePublicInstanceVerifies(t *testing.T) {
	root, err := data.TrustedRoot(t, "public-good.json").MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := data.Bundle(t, "sigstore.js@2.0.0-provenance.sigstore.json").MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	loader := &Loader{now: func() time.Time { return time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) }}
	of := func(root []byte) trust.Verifier {
		v, err := loader.Load(rootConfig(trust.Identity{
			Issuer: "https://token.actions.githubusercontent.com", SubjectRegexp: "https://github.com/sigstore/sigstore-js/.+",
		}), []trust.File{{Path: "/etc/trust/public.json", Data: root}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	e := bundleOf(bundle)
	var statement struct {
		Subject []struct{ Digest struct{ SHA512 string } }
	}
	if err := json.Unmarshal(proto(t, bundle).GetDsseEnvelope().GetPayload(), &statement); err != nil {
		t.Fatal(err)
	}
	e.Subject.Digest = digest.NewDigestFromEncoded(digest.SHA512, statement.Subject[0].Digest.SHA512)
	got := accept(t, of(root), e)
	if got.Kind != evidence.Attestation || got.PredicateType != provenance || got.Time.Year() != 2023 || len(got.Notes) > 0 {
		t.Errorf("%+v", got)
	}

	var parts map[string]any
	if err := json.Unmarshal(root, &parts); err != nil {
		t.Fatal(err)
	}
	var ours map[string]any
	if err := json.Unmarshal(sigstoretest.New(t).RootOf(t, sigstoretest.Parts{WithCertificateLog: true}), &ours); err != nil {
		t.Fatal(err)
	}
	parts["ctlogs"] = ours["ctlogs"]
	other, err := json.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	reject(t, of(other), e, "only able to verify 0 SCT entries")
}

// cosign v2 can log attestations as intoto, and before v2.2 did so in a version that holds no
// signature.
func TestLogEntryOfTheKindIntoto(t *testing.T) {
	s := sigstoretest.New(t)
	v := trustCI(t, s.Root)
	layer := s.CosignAttestation(t, repository, subject, ci, tokens, provenance, predicate)
	logged := func(version string) evidence.Evidence {
		body := sigstoretest.IntotoBody(t, version, layer.Data, []byte(layer.Annotations[certificateAnnotation]))
		return annotated(layerOf(layer), bundleAnnotation, s.LogAnnotation(t, body))
	}
	if got := accept(t, v, logged("0.0.2")); got.Kind != evidence.Attestation || got.PredicateType != provenance {
		t.Errorf("%+v", got)
	}
	reject(t, v, logged("0.0.1"), "kind intoto 0.0.1, which holds no signature")
}

func TestRegistrationGivesALoader(t *testing.T) {
	for _, r := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		if r.Type == trust.VerifierPlugin && r.ID == "sigstore" {
			instance, err := r.InitFn(nil)
			if err != nil {
				t.Fatal(err)
			}
			if kinds := instance.(trust.Loader).Kinds(); !slices.Equal(kinds, []trust.Kind{trust.Keys, trust.TrustedRoot}) {
				t.Fatalf("kinds %q", kinds)
			}
			return
		}
	}
	t.Fatal("it is not registered")
}

func TestVerifierIsSafeForConcurrentUse(t *testing.T) {
	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	byKey, byIdentity := trustKeys(t, k.PEM), trustCI(t, s.Root)
	var wg sync.WaitGroup
	for range 4 {
		for _, f := range keyForms(t, k, manifest) {
			wg.Go(func() { _, _ = byIdentity.Verify(t.Context(), f.e); accept(t, byKey, f.e) })
		}
		for _, f := range identityForms(t, s, manifest, ci, tokens) {
			wg.Go(func() { _, _ = byKey.Verify(t.Context(), f.e); accept(t, byIdentity, f.e) })
		}
	}
	wg.Wait()
}

func TestNothingIsDialled(t *testing.T) {
	dialled := func(what string) error {
		t.Errorf("%s is dialled", what)
		return errdefs.ErrUnavailable
	}
	transport, resolver := http.DefaultTransport, net.DefaultResolver
	t.Cleanup(func() { http.DefaultTransport, net.DefaultResolver = transport, resolver })
	http.DefaultTransport = roundTripper(func(r *http.Request) (*http.Response, error) { return nil, dialled(r.URL.Host) })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(_ context.Context, _, address string) (net.Conn, error) { return nil, dialled(address) }}

	s, k := sigstoretest.New(t), sigstoretest.NewKey(t)
	byKey, byIdentity := trustKeys(t, k.PEM), trustCI(t, s.Root)
	for _, f := range keyForms(t, k, manifest) {
		accept(t, byKey, f.e)
	}
	for _, f := range identityForms(t, s, manifest, ci, tokens) {
		accept(t, byIdentity, f.e)
		reject(t, trustCI(t, sigstoretest.New(t).Root), f.e, "does not vouch")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNotesSayWhatIsNotChecked(t *testing.T) {
	s := sigstoretest.New(t)
	e := bundleOf(s.Signature(t, subject, ci, tokens))
	for _, row := range []struct {
		parts sigstoretest.Parts
		notes int
	}{
		{sigstoretest.Parts{}, 1},
		{sigstoretest.Parts{WithoutLog: true}, 2},
	} {
		if got := accept(t, trustCI(t, s.RootOf(t, row.parts)), e); len(got.Notes) != row.notes {
			t.Errorf("%+v: %s", row.parts, strings.Join(got.Notes, "; "))
		}
	}
}
