package notation

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/digitorus/timestamp"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/tspclient-go"
	gocose "github.com/veraison/go-cose"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
)

// authority is a timestamp authority whose clock is set.
type authority struct {
	root, cert *x509.Certificate
	key        crypto.Signer
	now        time.Time
}

// newAuthority makes an authority whose certificates name addresses for revocation.
func newAuthority(t testing.TB, now time.Time, address string) *authority {
	t.Helper()
	rootKey := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TSA Root"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	root := must[*x509.Certificate](t)(notationtest.Certificate(template, template, rootKey.Public(), rootKey))
	usage := must[[]byte](t)(asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}}))
	template = &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "TSA"},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
		OCSPServer:      []string{address + "/ocsp"}, CRLDistributionPoints: []string{address + "/crl"},
	}
	cert := must[*x509.Certificate](t)(notationtest.Certificate(template, root, key.Public(), rootKey))
	return &authority{root: root, cert: cert, key: key, now: now}
}

// Timestamp answers a request by the authority's clock.
func (a *authority) Timestamp(_ context.Context, request *tspclient.Request) (*tspclient.Response, error) {
	raw, err := request.MarshalBinary()
	if err != nil {
		return nil, err
	}
	parsed, err := timestamp.ParseRequest(raw)
	if err != nil {
		return nil, err
	}
	stamp := timestamp.Timestamp{
		HashAlgorithm: parsed.HashAlgorithm, HashedMessage: parsed.HashedMessage, Nonce: parsed.Nonce,
		Time: a.now, Accuracy: time.Second, Policy: asn1.ObjectIdentifier{1, 2, 3}, AddTSACertificate: true,
	}
	raw, err = stamp.CreateResponseWithOpts(a.cert, a.key, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var response tspclient.Response
	return &response, response.UnmarshalBinary(raw)
}

// stamped asks for a timestamp when it signs.
func (a *authority) stamped(r *signature.SignRequest) {
	r.Timestamper, r.TSARootCAs = a, x509.NewCertPool()
	r.TSARootCAs.AddCert(a.root)
}

const timestampHeader = "io.cncf.notary.timestampSignature"

// transplanted puts the timestamp of one envelope into another.
func transplanted(t *testing.T, from, to evidence.Evidence) evidence.Evidence {
	t.Helper()
	if from.MediaType == notationtest.JWS {
		var envelope struct{ Header map[string]any }
		if err := json.Unmarshal(from.Data, &envelope); err != nil {
			t.Fatal(err)
		}
		return withHeader(t, to, timestampHeader, envelope.Header[timestampHeader])
	}
	var a, b gocose.Sign1Message
	if err := a.UnmarshalCBOR(from.Data); err != nil {
		t.Fatal(err)
	}
	if err := b.UnmarshalCBOR(to.Data); err != nil {
		t.Fatal(err)
	}
	b.Headers.Unprotected[timestampHeader], b.Headers.RawUnprotected = a.Headers.Unprotected[timestampHeader], nil
	to.Data = must[[]byte](t)(b.MarshalCBOR())
	return to
}

// stampedDir trusts the signer's root and the authority's.
func stampedDir(t *testing.T, s *notationtest.Signer, a *authority, option string) trust.Verifier {
	t.Helper()
	return loadedDir(t, stampedFiles(s, a, option)...)
}

func stampedFiles(s *notationtest.Signer, a *authority, option string) []trust.File {
	verification := map[string]any{"level": "strict"}
	if option != "" {
		verification["verifyTimestamp"] = option
	}
	return []trust.File{
		policyJSON(strictPolicy(with("signatureVerification", verification), with("trustStores", []string{"ca:vendor", "tsa:clock"}))),
		stored("ca", "vendor", s.RootPEM()), stored("tsa", "clock", notationtest.PEM(a.root)),
	}
}

func oldRoot(root, _ *x509.Certificate) { root.NotBefore = time.Now().Add(-24 * time.Hour) }

// V9: what has expired counts where a timestamp says that it was signed before, and only there.
func TestTimestampProvesWhenItWasSigned(t *testing.T) {
	address, count := listen(t)
	expired := newSigner(t, oldRoot, validFrom(-3*time.Hour, -time.Hour))
	then := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
	at := func(now time.Time) *authority { return newAuthority(t, now, address) }
	clock, other := at(then), at(then)
	each(t, func(t *testing.T, mediaType string) {
		e := sign(t, expired, mediaType, clock.stamped)
		for _, option := range []string{"", "always", "afterCertExpiry"} {
			v := stampedDir(t, expired, clock, option)
			if got := accepted(t, v, e); !got.Time.Equal(then) || got.Identity != notationtest.Identity {
				t.Errorf("signed at %s by %q, want %s", got.Time, got.Identity, then)
			}
			denied(t, v, sign(t, expired, mediaType), errdefs.ErrInvalidArgument, "no timestamp countersignature")
			denied(t, v, transplanted(t, sign(t, expired, mediaType, clock.stamped), e), errdefs.ErrInvalidArgument, "timestamp")
			for _, now := range []time.Duration{-4 * time.Hour, -time.Minute} {
				late := *clock
				late.now = time.Now().Add(now)
				denied(t, v, sign(t, expired, mediaType, late.stamped), errdefs.ErrInvalidArgument, "validity period")
			}
			denied(t, stampedDir(t, expired, other, option), e, errdefs.ErrInvalidArgument, "timestamp")
		}
		denied(t, roots(t, expired), e, errdefs.ErrInvalidArgument, "expired")
	})
	if n := count.Load(); n != 0 {
		t.Errorf("%d connections to the authority's addresses", n)
	}
}

// A timestamp that nobody has looked at is not passed on.
func TestTimestampIsPassedOnWhereItIsVerified(t *testing.T) {
	s := newSigner(t, oldRoot)
	clock := newAuthority(t, time.Now().Add(-time.Minute).Truncate(time.Second), "http://127.0.0.1:1")
	each(t, func(t *testing.T, mediaType string) {
		e := sign(t, s, mediaType, clock.stamped)
		for option, want := range map[string]time.Time{"": clock.now, "always": clock.now, "afterCertExpiry": {}} {
			if got := accepted(t, stampedDir(t, s, clock, option), e); !got.Time.Equal(want) {
				t.Errorf("%q: signed at %s, want %s", option, got.Time, want)
			}
		}
		if got := accepted(t, roots(t, s), e); !got.Time.IsZero() {
			t.Errorf("roots pass on %s", got.Time)
		}
		denied(t, stampedDir(t, s, clock, "always"), sign(t, s, mediaType), errdefs.ErrInvalidArgument, "no timestamp")
		accepted(t, stampedDir(t, s, clock, "afterCertExpiry"), sign(t, s, mediaType))
	})
}

func TestTimestampOptionIsOneOfTwo(t *testing.T) {
	s, clock := newSigner(t), newAuthority(t, time.Now(), "http://127.0.0.1:1")
	stampedDir(t, s, clock, "always")
	refusedAtLoad(t, dirConfig, stampedFiles(s, clock, "never"), "verifyTimestamp")
}

// A token is parsed before it is verified: what anybody can write into it costs no more than
// its bytes.
func TestTimestampOfNestedJunkIsCheap(t *testing.T) {
	s, clock := newSigner(t, oldRoot), newAuthority(t, time.Now().Add(-time.Minute).Truncate(time.Second), "http://127.0.0.1:1")
	e := sign(t, s, notationtest.JWS, clock.stamped)
	v := stampedDir(t, s, clock, "always")
	accepted(t, v, e)
	for _, junk := range []string{strings.Repeat("\x30\x80", maxTimestamp/2), strings.Repeat("\x24\x80", maxTimestamp/2), strings.Repeat("\xff", maxTimestamp)} {
		bad := withHeader(t, e, timestampHeader, []byte(junk))
		if took := allocated(func() { denied(t, v, bad, errdefs.ErrInvalidArgument, "timestamp") }); took > 32<<20 {
			t.Errorf("%d bytes of junk took %d", len(junk), took)
		}
	}
}
