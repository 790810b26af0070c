package notation

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-go"
	notationverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	gocose "github.com/veraison/go-cose"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
)

// withBag returns the evidence with other certificates, which no signature covers.
func withBag(t *testing.T, e evidence.Evidence, certs ...*x509.Certificate) evidence.Evidence {
	t.Helper()
	if e.MediaType == notationtest.COSE {
		var message gocose.Sign1Message
		if err := message.UnmarshalCBOR(e.Data); err != nil {
			t.Fatal(err)
		}
		var chain []any
		for _, cert := range certs {
			chain = append(chain, cert.Raw)
		}
		message.Headers.Unprotected[gocose.HeaderLabelX5Chain] = chain
		message.Headers.RawUnprotected = nil
		e.Data = must[[]byte](t)(message.MarshalCBOR())
		return e
	}
	var chain [][]byte
	for _, cert := range certs {
		chain = append(chain, cert.Raw)
	}
	return withHeader(t, e, "x5c", chain)
}

// withHeader returns JWS evidence with an unsigned header.
func withHeader(t *testing.T, e evidence.Evidence, key string, value any) evidence.Evidence {
	t.Helper()
	var envelope map[string]any
	if err := json.Unmarshal(e.Data, &envelope); err != nil {
		t.Fatal(err)
	}
	envelope["header"].(map[string]any)[key] = value
	e.Data = must[[]byte](t)(json.Marshal(envelope))
	return e
}

// V10: the certificate that is judged is the one whose key verifies the signature, and its
// chain is the trusted one.
func TestForgedCertificateInTheBagIsRefused(t *testing.T) {
	s := newSigner(t)
	mallory := newSigner(t) // the same names by a root of their own
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := *s.Leaf
	template.Subject.CommonName, template.RawSubject, template.SerialNumber = "Test", nil, big.NewInt(3)
	test := &notationtest.Signer{Root: s.Root, Key: key,
		Leaf: must[*x509.Certificate](t)(notationtest.Certificate(&template, s.Root, key.Public(), s.RootKey))}
	v := roots(t, s)
	each(t, func(t *testing.T, mediaType string) {
		good, byTest, byMallory := sign(t, s, mediaType), sign(t, test, mediaType), sign(t, mallory, mediaType)
		accepted(t, v, withBag(t, good, s.Leaf, s.Root))
		accepted(t, roots(t, s, "C=US, ST=WA, O=Vendor, CN=Test"), byTest)
		denied(t, v, byTest, errdefs.ErrPermissionDenied, "CN=Test")
		for name, e := range map[string]evidence.Evidence{
			"release before test":            withBag(t, byTest, s.Leaf, test.Leaf, s.Root),
			"release alone":                  withBag(t, byTest, s.Leaf, s.Root),
			"release behind test":            withBag(t, byTest, test.Leaf, s.Leaf, s.Root),
			"mallory, then the release":      withBag(t, byMallory, mallory.Leaf, s.Leaf, s.Root),
			"mallory below the trusted root": withBag(t, byMallory, mallory.Leaf, s.Root),
			"release before mallory":         withBag(t, byMallory, s.Leaf, mallory.Leaf, mallory.Root),
			"trusted root at the end":        withBag(t, byMallory, mallory.Leaf, mallory.Root, s.Root),
			"trusted root first":             withBag(t, byMallory, s.Root, mallory.Leaf, mallory.Root),
			"no root":                        withBag(t, good, s.Leaf),
			"no certificate":                 withBag(t, good),
		} {
			t.Run(name, func(t *testing.T) { denied(t, v, e, errdefs.ErrInvalidArgument, "notation refuses") })
		}
	})
}

// V7: how much notation parses is bounded.
func TestEnvelopeIsBounded(t *testing.T) {
	s := newSigner(t)
	v := roots(t, s)
	e := sign(t, s, notationtest.JWS)
	pad := func(size int) evidence.Evidence {
		padded := e
		padded.Data = append(bytes.Clone(e.Data), bytes.Repeat([]byte(" "), size-len(e.Data))...)
		return padded
	}
	accepted(t, v, pad(maxEnvelope))
	denied(t, v, pad(maxEnvelope+1), errdefs.ErrInvalidArgument, "1048577 bytes, more than 1048576")
	const header = timestampHeader
	accepted(t, v, withHeader(t, e, header, make([]byte, maxTimestamp)))
	denied(t, v, withHeader(t, e, header, make([]byte, maxTimestamp+1)), errdefs.ErrInvalidArgument, "timestamp has 65537 bytes")
	deep := func(n int) evidence.Evidence {
		padded := e
		padded.Data = append([]byte(`{"a":`+strings.Repeat("[", n)+strings.Repeat("]", n)+","), e.Data[1:]...)
		return padded
	}
	accepted(t, v, deep(maxDepth-1))
	denied(t, v, deep(maxDepth), errdefs.ErrInvalidArgument, "deeper than 32")
	for _, data := range []string{"", "{}", "[]", "null", `""`, "\xd2\x80", strings.Repeat("[", maxEnvelope), strings.Repeat(`{"a":`, 1000)} {
		for _, mediaType := range formats {
			denied(t, v, about(mediaType, []byte(data)), errdefs.ErrInvalidArgument, "envelope")
		}
	}
}

func TestChainIsBounded(t *testing.T) {
	s := newSigner(t)
	v := roots(t, s)
	each(t, func(t *testing.T, mediaType string) {
		accepted(t, v, chained(t, s, mediaType, maxCertificates))
		denied(t, v, chained(t, s, mediaType, maxCertificates+1), errdefs.ErrInvalidArgument, "11 certificates, more than 10")
	})
}

// chained signs with a chain of n certificates.
func chained(t *testing.T, s *notationtest.Signer, mediaType string, n int) evidence.Evidence {
	t.Helper()
	chain := []*x509.Certificate{s.Root}
	parent, key := s.Root, s.RootKey
	for i := range n - 2 {
		template := *s.Root
		template.Subject.CommonName, template.RawSubject, template.SerialNumber = fmt.Sprint("Intermediate ", i), nil, big.NewInt(int64(10+i))
		next := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		parent = must[*x509.Certificate](t)(notationtest.Certificate(&template, parent, next.Public(), key))
		key = next
		chain = append([]*x509.Certificate{parent}, chain...)
	}
	leaf := must[*x509.Certificate](t)(notationtest.Certificate(s.Leaf, parent, s.Key.Public(), key))
	chain = append([]*x509.Certificate{leaf}, chain...)
	return sign(t, s, mediaType, func(r *signature.SignRequest) {
		r.Signer = must[signature.LocalSigner](t)(signature.NewLocalSigner(chain, s.Key))
	})
}

// notation verifies a chain before it asks whether it trusts the root: a key that anybody can
// make takes seconds.
func TestKeyThatTakesSecondsIsRefused(t *testing.T) {
	s := newSigner(t)
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), maxRSA, 1), E: 65537}
	most := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), maxRSA-1, 1), E: 65537}
	each(t, func(t *testing.T, mediaType string) {
		e := sign(t, s, mediaType)
		accepted(t, roots(t, s), e)
		with := func(key *rsa.PublicKey) evidence.Evidence {
			return withBag(t, e, s.Leaf, must[*x509.Certificate](t)(notationtest.Certificate(s.Root, s.Root, key, s.RootKey)))
		}
		denied(t, roots(t, s), with(huge), errdefs.ErrInvalidArgument, "8193 bits, more than 8192")
		denied(t, roots(t, s), with(most), errdefs.ErrInvalidArgument, "notation refuses")
	})
}

// V15: a name costs no more than its bytes.
func TestNameThatExhaustsMemoryIsRefused(t *testing.T) {
	long := func(n int) *notationtest.Signer {
		return newSigner(t, func(_, leaf *x509.Certificate) {
			leaf.Subject.OrganizationalUnit = []string{strings.Repeat("+", n)}
		})
	}
	each(t, func(t *testing.T, mediaType string) {
		most, more := long(3900), long(5000)
		v, e := roots(t, most), sign(t, most, mediaType)
		if took := allocated(func() { accepted(t, v, e) }); took > 2<<20 {
			t.Errorf("a name of 3,900 bytes took %d bytes", took)
		}
		huge := sign(t, more, mediaType)
		if took := allocated(func() { denied(t, roots(t, more), huge, errdefs.ErrInvalidArgument, "a name of it has") }); took > 1<<20 {
			t.Errorf("a name of 5,000 bytes took %d bytes", took)
		}
		larger := sign(t, long(maxCertificate), mediaType)
		denied(t, roots(t, more), larger, errdefs.ErrInvalidArgument, "bytes, more than 16384")
	})
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestEnvelopeThatReadsTwoWaysIsRefused(t *testing.T) {
	s := newSigner(t)
	v := roots(t, s)
	e := sign(t, s, notationtest.JWS)
	accepted(t, v, e)
	for _, name := range []string{`"payload"`, `"PAYLOAD"`, `"pay\u006coad"`} {
		twice := e
		twice.Data = append([]byte(`{`+name+`:"e30",`), e.Data[1:]...)
		denied(t, v, twice, errdefs.ErrInvalidArgument, "occurs twice")
	}
	behind := e
	behind.Data = append(bytes.Clone(e.Data), "{}"...)
	denied(t, v, behind, errdefs.ErrInvalidArgument, "more than one")

	// What is signed may read two ways as well.
	target := string(must[[]byte](t)(json.Marshal(subject)))
	other := string(must[[]byte](t)(json.Marshal(descriptor("a sibling"))))
	payload := func(text string) func(*signature.SignRequest) {
		return func(r *signature.SignRequest) { r.Payload.Content = []byte(text) }
	}
	accepted(t, v, sign(t, s, notationtest.COSE, payload(`{"targetArtifact":`+target+`}`)))
	denied(t, v, sign(t, s, notationtest.COSE, payload(`{"targetArtifact":`+other+`,"targetArtifact":`+target+`}`)), errdefs.ErrInvalidArgument, "occurs twice")

	header := `"alg":"ES256","cty":"application/vnd.cncf.notary.payload.v1+json","crit":["io.cncf.notary.signingScheme"],"io.cncf.notary.signingTime":"` +
		s.Leaf.NotBefore.Format("2006-01-02T15:04:05Z07:00") + `","io.cncf.notary.signingScheme":"notary.x509"`
	accepted(t, v, rawJWS(t, s, `{`+header+`}`, `{"targetArtifact":`+target+`}`))
	denied(t, v, rawJWS(t, s, `{"alg":"none",`+header+`}`, `{"targetArtifact":`+target+`}`), errdefs.ErrInvalidArgument, "occurs twice")
}

// rawJWS signs texts as they are.
func rawJWS(t *testing.T, s *notationtest.Signer, protected, payload string) evidence.Evidence {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(protected)) + "." + encode([]byte(payload))
	hash := sha256.Sum256([]byte(signed))
	r, ss, err := ecdsa.Sign(rand.Reader, s.Key.(*ecdsa.PrivateKey), hash[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := append(r.FillBytes(make([]byte, 32)), ss.FillBytes(make([]byte, 32))...)
	return about(notationtest.JWS, must[[]byte](t)(json.Marshal(map[string]any{
		"protected": encode([]byte(protected)), "payload": encode([]byte(payload)), "signature": encode(sig),
		"header": map[string]any{"x5c": [][]byte{s.Leaf.Raw, s.Root.Raw}},
	})))
}

func TestPayloadOfAnotherTypeIsRefused(t *testing.T) {
	s := newSigner(t)
	each(t, func(t *testing.T, mediaType string) {
		content := func(r *signature.SignRequest) { r.Payload.ContentType = "application/vnd.in-toto+json" }
		accepted(t, roots(t, s), sign(t, s, mediaType))
		denied(t, roots(t, s), sign(t, s, mediaType, content), errdefs.ErrInvalidArgument, "content type")
		empty := func(r *signature.SignRequest) { r.Payload.Content = []byte(`{}`) }
		denied(t, roots(t, s), sign(t, s, mediaType, empty), errdefs.ErrInvalidArgument, "it signs")
	})
}

// Text of whoever made an envelope is cut and quoted.
func TestTextOfTheNetworkIsQuoted(t *testing.T) {
	s := newSigner(t, func(_, leaf *x509.Certificate) {
		leaf.Subject = pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"a\nverified=true \x1b[2J" + strings.Repeat("x", 2000)}}
	})
	each(t, func(t *testing.T, mediaType string) {
		for _, e := range []evidence.Evidence{
			sign(t, s, mediaType),
			sign(t, s, mediaType, func(r *signature.SignRequest) {
				r.ExtendedSignedAttributes = []signature.Attribute{{Key: "io.cncf.notary.verificationPlugin", Critical: true, Value: "\n\x1b" + strings.Repeat("x", 2000)}}
			}),
			about(mediaType+"\n"+strings.Repeat("x", 2000), nil),
		} {
			_, err := roots(t, newSigner(t)).Verify(t.Context(), e)
			if err == nil || len(err.Error()) > 900 || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("refused with %q", err)
			}
		}
	})
}

// listen counts connections and answers none.
func listen(t *testing.T) (address string, count *atomic.Int32) {
	t.Helper()
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { listener.Close() })
	count = new(atomic.Int32)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			conn.Close()
		}
	}()
	return "http://" + listener.Addr().String(), count
}

// V21: addresses in certificates come from the network.
func TestAddressesInCertificatesAreNotDialled(t *testing.T) {
	address, count := listen(t)
	s := newSigner(t, func(root, leaf *x509.Certificate) {
		for _, cert := range []*x509.Certificate{root, leaf} {
			cert.OCSPServer = []string{address + "/ocsp"}
			cert.CRLDistributionPoints = []string{address + "/crl"}
			cert.IssuingCertificateURL = []string{address + "/ca"}
		}
	})
	each(t, func(t *testing.T, mediaType string) {
		e := sign(t, s, mediaType)
		accepted(t, roots(t, s), e)
		accepted(t, loadedDir(t, policyJSON(strictPolicy()), stored("ca", "vendor", s.RootPEM())), e)
		denied(t, roots(t, newSigner(t)), e, errdefs.ErrPermissionDenied, "root that is not trusted")
		if n := count.Load(); n != 0 {
			t.Fatalf("%d connections", n)
		}
	})

	// The twin: notation as it comes dials them.
	transport := http.DefaultTransport
	http.DefaultTransport = &http.Transport{}
	defer func() { http.DefaultTransport = transport }()
	store := make(memoryStore)
	store.add(truststore.TypeCA, "vendor", []*x509.Certificate{s.Root})
	stock := must[notation.Verifier](t)(notationverifier.New(&trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name: "vendor", RegistryScopes: []string{"*"}, TrustStores: []string{"ca:vendor"}, TrustedIdentities: []string{"*"},
		SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: "strict"},
	}}}, store, nil))
	_, err := stock.Verify(context.Background(), subject, sign(t, s, notationtest.JWS).Data,
		notation.VerifierVerifyOptions{ArtifactReference: anyArtifact, SignatureMediaType: notationtest.JWS})
	if err == nil || count.Load() == 0 {
		t.Errorf("notation dialled %d times: %v", count.Load(), err)
	}
}
