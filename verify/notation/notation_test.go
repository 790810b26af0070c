package notation

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
)

// TestMain takes the network away: whatever dials by the usual ways ends all tests.
func TestMain(m *testing.M) {
	dial := func(context.Context, string, string) (net.Conn, error) {
		panic("a verifier dialled")
	}
	http.DefaultTransport = &http.Transport{DialContext: dial}
	http.DefaultClient.Transport = http.DefaultTransport
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: dial}
	os.Exit(m.Run())
}

var formats = []string{notationtest.JWS, notationtest.COSE}

var subject = descriptor("the manifest")

func descriptor(content string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(content), Size: int64(len(content))}
}

func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newSigner(t testing.TB, changes ...notationtest.Change) *notationtest.Signer {
	t.Helper()
	return must[*notationtest.Signer](t)(notationtest.New(changes...))
}

func sign(t testing.TB, s *notationtest.Signer, mediaType string, changes ...func(*signature.SignRequest)) evidence.Evidence {
	t.Helper()
	return about(mediaType, must[[]byte](t)(s.Sign(mediaType, subject, changes...)))
}

func about(mediaType string, data []byte) evidence.Evidence {
	return evidence.Evidence{Format: evidence.Notation, Subject: subject, MediaType: mediaType, Data: data}
}

// roots makes a verifier of the signer's root.
func roots(t testing.TB, s *notationtest.Signer, subjects ...string) trust.Verifier {
	t.Helper()
	if len(subjects) == 0 {
		subjects = []string{notationtest.Subject}
	}
	config := trust.Config{NotationRoots: []string{"/trust/ca.pem"}, Subjects: subjects}
	return must[trust.Verifier](t)(Loader{}.Load(config, []trust.File{{Path: "/trust/ca.pem", Data: s.RootPEM()}}))
}

func accepted(t *testing.T, v trust.Verifier, e evidence.Evidence) evidence.Verified {
	t.Helper()
	return must[evidence.Verified](t)(v.Verify(t.Context(), e))
}

// denied holds that evidence is refused by the kind of error, in words that include text.
func denied(t *testing.T, v trust.Verifier, e evidence.Evidence, kind error, text string) {
	t.Helper()
	got, err := v.Verify(t.Context(), e)
	if err == nil {
		t.Fatalf("accepted as %+v, want refused with %q", got, text)
	}
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("refused with %q, want %v with %q", err, kind, text)
	}
	if len(err.Error()) > 900 {
		t.Errorf("the refusal has %d bytes", len(err.Error()))
	}
	if got.Identity != "" || got.Kind != "" {
		t.Errorf("a refusal proves %+v", got)
	}
}

// each runs a test for both formats.
func each(t *testing.T, test func(t *testing.T, mediaType string)) {
	for _, mediaType := range formats {
		t.Run(mediaType, func(t *testing.T) { test(t, mediaType) })
	}
}

func validFrom(from, until time.Duration) notationtest.Change {
	return func(_, leaf *x509.Certificate) {
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(from), time.Now().Add(until)
	}
}

func TestImportRegistersTheLoader(t *testing.T) {
	for _, r := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		if r.Type != trust.VerifierPlugin || r.ID != "notation" {
			continue
		}
		instance := must[any](t)(r.InitFn(nil))
		if _, ok := instance.(trust.Loader); !ok {
			t.Errorf("the plugin's instance is a %T", instance)
		}
		return
	}
	t.Error("no plugin is registered")
}

func TestSignatureIsVerifiedWithEachKindOfKey(t *testing.T) {
	rsa := must[*notationtest.Signer](t)(notationtest.NewRSA())
	for name, s := range map[string]*notationtest.Signer{"ECDSA": newSigner(t), "RSA": rsa} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, mediaType string) {
				got := accepted(t, roots(t, s), sign(t, s, mediaType))
				if got.Kind != evidence.Signature || got.Identity != notationtest.Identity {
					t.Errorf("verified as %q by %q", got.Kind, got.Identity)
				}
				if len(got.Notes) != 1 || got.Notes[0] != "revocation is not checked" {
					t.Errorf("notes are %q", got.Notes)
				}
				if !got.Time.IsZero() || got.Predicate != nil || got.Names != nil {
					t.Errorf("it proves more than it says: %+v", got)
				}
			})
		})
	}
}

func TestOtherFormatsAreLeftToOthers(t *testing.T) {
	s := newSigner(t)
	e := sign(t, s, notationtest.JWS)
	accepted(t, roots(t, s), e)
	for _, format := range evidence.Formats {
		if format == evidence.Notation {
			continue
		}
		e.Format = format
		denied(t, roots(t, s), e, errdefs.ErrNotImplemented, string(format))
	}
}

func TestEnvelopeIsReadByItsMediaType(t *testing.T) {
	s := newSigner(t)
	each(t, func(t *testing.T, mediaType string) {
		e := sign(t, s, mediaType)
		accepted(t, roots(t, s), e)
		e.MediaType = "application/json"
		denied(t, roots(t, s), e, errdefs.ErrInvalidArgument, `media type is "application/json"`)
		e.MediaType = formats[0]
		if mediaType == formats[0] {
			e.MediaType = formats[1]
		}
		denied(t, roots(t, s), e, errdefs.ErrInvalidArgument, "cannot be read")
	})
}

// V14: type, digest and size are signed, and each is compared.
func TestSignatureOfAnotherSubjectIsRefused(t *testing.T) {
	s := newSigner(t)
	each(t, func(t *testing.T, mediaType string) {
		e := sign(t, s, mediaType)
		accepted(t, roots(t, s), e)
		for name, change := range map[string]struct {
			do   func(*ocispec.Descriptor)
			want string
		}{
			"digest": {func(d *ocispec.Descriptor) { d.Digest = digest.FromString("a sibling") }, "it signs"},
			"size":   {func(d *ocispec.Descriptor) { d.Size++ }, "bytes, not of"},
			"type":   {func(d *ocispec.Descriptor) { d.MediaType = ocispec.MediaTypeImageIndex }, "of type"},
		} {
			t.Run(name, func(t *testing.T) {
				e := e
				change.do(&e.Subject)
				denied(t, roots(t, s), e, errdefs.ErrInvalidArgument, change.want)
			})
		}
	})
}

func TestSignatureByAnotherRootIsSomebodyElses(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	each(t, func(t *testing.T, mediaType string) {
		e := sign(t, s, mediaType)
		accepted(t, roots(t, s), e)
		denied(t, roots(t, other), e, errdefs.ErrPermissionDenied, "root that is not trusted")
		e.Subject.Size++
		denied(t, roots(t, other), e, errdefs.ErrInvalidArgument, "it signs") // and not valid either
	})
}

func TestSignatureByAnotherSubjectOfTheRootIsSomebodyElses(t *testing.T) {
	s := newSigner(t)
	each(t, func(t *testing.T, mediaType string) {
		e := sign(t, s, mediaType)
		accepted(t, roots(t, s, "O=Vendor, ST=WA, C=US"), e) // fewer parts, another order
		for _, subject := range []string{"C=US, ST=WA, O=Vendor, CN=Test", "C=US, ST=WA, O=Vendor, CN=Release, OU=Other"} {
			denied(t, roots(t, s, subject), e, errdefs.ErrPermissionDenied, "CN=Release")
		}
		accepted(t, roots(t, s, "C=US, ST=WA, O=Vendor, CN=Test", notationtest.Subject), e)
	})
}

func TestTamperedEnvelopeIsRefused(t *testing.T) {
	s := newSigner(t)
	v := roots(t, s)
	each(t, func(t *testing.T, mediaType string) {
		e := sign(t, s, mediaType)
		accepted(t, v, e)
		for i := 0; i < len(e.Data); i += 7 {
			tampered := e
			tampered.Data = append([]byte(nil), e.Data...)
			tampered.Data[i] ^= 1
			got, err := v.Verify(t.Context(), tampered)
			if err == nil && got.Identity != notationtest.Identity { // what is unsigned may change
				t.Fatalf("byte %d: %q", i, got.Identity)
			}
		}
	})
}

// V9, V21: with no trusted time but the clock, the certificate must be valid now.
func TestCertificateIsValidNow(t *testing.T) {
	for name, c := range map[string]struct {
		from, until time.Duration
		want        string
	}{
		"valid":   {-time.Minute, time.Minute, ""},
		"expired": {-time.Hour, -time.Minute, "expired at"},
		"future":  {time.Minute, time.Hour, "will be valid from"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigner(t, validFrom(c.from, c.until))
			each(t, func(t *testing.T, mediaType string) {
				if c.want == "" {
					accepted(t, roots(t, s), sign(t, s, mediaType))
					return
				}
				denied(t, roots(t, s), sign(t, s, mediaType), errdefs.ErrInvalidArgument, c.want)
			})
		})
	}
}

// V9: the signer says until when the signature holds.
func TestSignatureThatHasExpiredIsRefused(t *testing.T) {
	s := newSigner(t)
	each(t, func(t *testing.T, mediaType string) {
		until := func(d time.Duration) func(*signature.SignRequest) {
			return func(r *signature.SignRequest) { r.Expiry = time.Now().Add(d) }
		}
		accepted(t, roots(t, s), sign(t, s, mediaType, until(time.Hour)))
		denied(t, roots(t, s), sign(t, s, mediaType, until(-time.Minute)), errdefs.ErrInvalidArgument, "expired")
	})
}

// V16: nothing is run, and nothing is on disk.
func TestSignatureThatDemandsAPluginIsRefused(t *testing.T) {
	s := newSigner(t)
	each(t, func(t *testing.T, mediaType string) {
		with := func(key string, critical bool) evidence.Evidence {
			return sign(t, s, mediaType, func(r *signature.SignRequest) {
				r.ExtendedSignedAttributes = []signature.Attribute{{Key: key, Critical: critical, Value: "com.amazonaws.signer.notation.plugin"}}
			})
		}
		accepted(t, roots(t, s), with("com.example.comment", false))
		denied(t, roots(t, s), with("io.cncf.notary.verificationPlugin", true), errdefs.ErrInvalidArgument, "none is run here")
		denied(t, roots(t, s), with("io.cncf.notary.verificationPlugin", false), errdefs.ErrInvalidArgument, "none is run here")
		denied(t, roots(t, s), with("io.cncf.notary.verificationPluginMinVersion", true), errdefs.ErrInvalidArgument, "none is run here")
		denied(t, roots(t, s), with("com.example.must-be-understood", true), errdefs.ErrInvalidArgument, "critical attribute")
	})
}

// Signing authorities vouch for a time of their own; roots in notation_roots do not.
func TestRootsAreNoSigningAuthorities(t *testing.T) {
	s := newSigner(t)
	each(t, func(t *testing.T, mediaType string) {
		scheme := func(scheme signature.SigningScheme) evidence.Evidence {
			return sign(t, s, mediaType, func(r *signature.SignRequest) { r.SigningScheme = scheme })
		}
		accepted(t, roots(t, s), scheme(signature.SigningSchemeX509))
		denied(t, roots(t, s), scheme(signature.SigningSchemeX509SigningAuthority), errdefs.ErrPermissionDenied, "no trusted certificates")
	})
}

func TestVerifierIsUsedByManyAtOnce(t *testing.T) {
	s := newSigner(t)
	v := loadedDir(t, policyJSON(strictPolicy()), stored("ca", "vendor", s.RootPEM()))
	var group sync.WaitGroup
	for i := range 16 {
		e := sign(t, s, formats[i%2])
		group.Go(func() {
			if _, err := v.Verify(t.Context(), e); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}
