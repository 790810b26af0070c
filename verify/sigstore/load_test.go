package sigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

func rejectLoad(tb testing.TB, config trust.Config, why string, files ...[]byte) {
	tb.Helper()
	switch _, err := load(config, files...); {
	case err == nil:
		tb.Fatal("it is loaded")
	case !strings.Contains(err.Error(), why):
		tb.Fatalf("it is refused for another reason than %q: %v", why, err)
	case !errors.Is(err, errdefs.ErrInvalidArgument):
		tb.Fatalf("the error is of another kind: %v", err)
	}
}

func rejectFile(tb testing.TB, config trust.Config, why string, file []byte) {
	tb.Helper()
	rejectLoad(tb, config, why, file)
	rejectLoad(tb, config, "/etc/trust/a", file)
}

func block(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

func TestKeyFileThatIsNoKeyIsRefused(t *testing.T) {
	k := sigstoretest.NewKey(t)
	accepted, err := load(trust.Config{Keys: []string{""}}, k.PEM)
	if err != nil || len(accepted.Facts().Names) != 1 {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		t.Fatal(err)
	}
	certificate := sigstoretest.SelfSigned(t, k.Private, ci, tokens)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		file []byte
		why  string
	}{
		"empty":              {nil, "is empty; write a public key"},
		"blank":              {[]byte(" \n\n"), "is empty"},
		"private":            {block("PRIVATE KEY", private), "private key, which belongs on no node"},
		"cosign's private":   {block("ENCRYPTED SIGSTORE PRIVATE KEY", private), "private key, which belongs on no node"},
		"certificate":        {certificate, "openssl x509 -pubkey"},
		"PKCS 1":             {block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&small.PublicKey)), "openssl rsa"},
		"other":              {block("PGP PUBLIC KEY BLOCK", private), "write a PUBLIC KEY"},
		"text":               {[]byte("release.pub"), "no PEM where its block 1 should begin"},
		"text before":        {append([]byte("my key\n"), k.PEM...), "no PEM where its block 1 should begin"},
		"text behind":        {append(slices.Clone(k.PEM), "garbage"...), "no PEM where its block 2 should begin"},
		"broken before":      {append([]byte("-----BEGIN PUBLIC KEY-----\n!\n"), k.PEM...), "no PEM where its block 1 should begin"},
		"truncated":          {k.PEM[:len(k.PEM)/2], "no PEM where its block 1"},
		"no key within":      {block("PUBLIC KEY", []byte("x")), "it is no public key"},
		"weak RSA":           {block("PUBLIC KEY", spki(t, &small.PublicKey)), "RSA key of 1024 bits"},
		"P-224":              {block("PUBLIC KEY", spki(t, &p224.PublicKey)), "curve P-224"},
		"second is no key":   {append(slices.Clone(k.PEM), block("PUBLIC KEY", []byte("x"))...), "block 2: it is no public key"},
		"DER, which openssl": {spki(t, k.Private.Public()), "no PEM"},
	} {
		t.Run(name, func(t *testing.T) { rejectFile(t, trust.Config{Keys: []string{""}}, row.why, row.file) })
	}
	rejectLoad(t, trust.Config{Keys: []string{""}}, "the trust has no file")
	rejectLoad(t, trust.Config{NotationDir: "/etc/notation"}, "is not sigstore's", k.PEM)
}

func spki(tb testing.TB, public crypto.PublicKey) []byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// V8: one key cannot fill a threshold of two by lying in two files.
func TestSameKeyInTwoFilesIsOneIdentity(t *testing.T) {
	a, b := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	both := append(slices.Clone(a.PEM), b.PEM...)
	if f := trustKeys(t, both).Facts(); f.Identities != 2 || len(f.Names) != 2 || !f.Expires.IsZero() || !f.Issued.IsZero() {
		t.Errorf("two keys in a file: %+v", f)
	}
	one := trustKeys(t, a.PEM, append(slices.Clone(a.PEM), a.PEM...))
	if f := one.Facts(); f.Identities != 1 || len(f.Names) != 1 {
		t.Errorf("one key thrice: %+v", f)
	}
	if got := accept(t, one, bundleOf(a.Signature(t, subject))); got.Identity != one.Facts().Names[0] {
		t.Errorf("signed by %s", got.Identity)
	}
	reject(t, one, bundleOf(b.Signature(t, subject)), "none of the trust's 1 keys")
}

func TestRootThatCannotVouchIsRefused(t *testing.T) {
	s := sigstoretest.New(t)
	config := rootConfig(trust.Identity{Issuer: tokens, Subject: ci})
	for name, row := range map[string]struct {
		file []byte
		why  string
	}{
		"empty":           {nil, "is empty"},
		"no JSON":         {[]byte("x"), "is no trusted root"},
		"another type":    {[]byte(`{"mediaType":"application/json"}`), "unsupported TrustedRoot media type"},
		"key":             {sigstoretest.NewKey(t).PEM, "is no trusted root"},
		"no authority":    {[]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), "no certificate authority"},
		"nothing of time": {s.RootOf(t, sigstoretest.Parts{WithoutLog: true, WithoutTimestamps: true}), "neither a log nor a timestamp authority"},
	} {
		t.Run(name, func(t *testing.T) { rejectFile(t, config, row.why, row.file) })
	}
	for _, parts := range []sigstoretest.Parts{{}, {WithoutLog: true}, {WithoutTimestamps: true}, {WithCertificateLog: true}} {
		loaded(t, config, s.RootOf(t, parts))
	}
	rejectLoad(t, rootConfig(), "trusted_root without identities", s.Root)
	rejectLoad(t, rootConfig(trust.Identity{Issuer: tokens, SubjectRegexp: "("}), "subject_regexp", s.Root)
}

func TestRootsOfDifferentKindsAreRefused(t *testing.T) {
	a, b := sigstoretest.New(t), sigstoretest.New(t)
	config := rootConfig(trust.Identity{Issuer: tokens, Subject: ci})
	rejectLoad(t, config, "make a trust of each", a.Root, b.RootOf(t, sigstoretest.Parts{WithoutLog: true}))
	rejectLoad(t, config, "make a trust of each", a.Root, b.RootOf(t, sigstoretest.Parts{WithCertificateLog: true}))
	v := loaded(t, config, a.Root, b.Root)
	for _, s := range []*sigstoretest.Sigstore{a, b} {
		accept(t, v, bundleOf(s.Signature(t, subject, ci, tokens)))
	}
	reject(t, v, bundleOf(sigstoretest.New(t).Signature(t, subject, ci, tokens)), "does not vouch")
}

func TestIdentitiesAreCountedWhereTheyHaveABound(t *testing.T) {
	s := sigstoretest.New(t)
	exact, other := trust.Identity{Issuer: tokens, Subject: ci}, trust.Identity{Issuer: tokens, Subject: "b@example.com"}
	for _, row := range []struct {
		ids   []trust.Identity
		count int
		names int
	}{
		{[]trust.Identity{exact}, 1, 1},
		{[]trust.Identity{exact, other, exact}, 2, 2},
		{[]trust.Identity{exact, {Issuer: tokens, SubjectRegexp: ".*"}}, 0, 1},
		{[]trust.Identity{{IssuerRegexp: ".*", Subject: ci}}, 0, 0},
	} {
		if f := loaded(t, rootConfig(row.ids...), s.Root).Facts(); f.Identities != row.count || len(f.Names) != row.names {
			t.Errorf("%+v: %+v", row.ids, f)
		}
	}
}

func TestFactsSayWhenARootBeginsAndEnds(t *testing.T) {
	s := sigstoretest.New(t)
	// The virtual authorities end in an hour, its log too; the timestamp authority's certificate
	// in five minutes, and the newest of them, the log, began an hour ago.
	in := func(when time.Time, d time.Duration) bool { return time.Until(when.Add(-d)).Abs() < time.Minute }
	whole := trustCI(t, s.Root).Facts()
	if !in(whole.Expires, 5*time.Minute) || !in(whole.Issued, -time.Hour) {
		t.Errorf("%+v", whole)
	}
	if f := trustCI(t, s.RootOf(t, sigstoretest.Parts{WithoutTimestamps: true})).Facts(); !in(f.Expires, time.Hour) {
		t.Errorf("%+v", f)
	}
	if f := trustCI(t, s.RootOf(t, sigstoretest.Parts{WithoutLog: true})).Facts(); !in(f.Issued, -5*time.Hour) {
		t.Errorf("%+v", f)
	}
}

func TestLastEndIsThatOfTheLast(t *testing.T) {
	at := func(h int) time.Time { return time.Unix(int64(h)*3600, 0) }
	for _, row := range []struct {
		all  []period
		want time.Time
	}{
		{nil, time.Time{}},
		{[]period{{end: at(1)}, {end: at(3)}, {end: at(2)}}, at(3)},
		{[]period{{end: at(1)}, {}}, time.Time{}},
	} {
		if got := lastEnd(row.all); !got.Equal(row.want) {
			t.Errorf("%v: %s", row.all, got)
		}
	}
	if p := within(period{end: at(5)}, nil, &x509.Certificate{NotAfter: at(4)}, &x509.Certificate{NotAfter: at(6)}); !p.end.Equal(at(4)) {
		t.Errorf("ends at %s", p.end)
	}
}

// V21, clock before and after validity: the clock of a node, which may be wrong, decides
// nothing but whether a file is refused as expired.
func TestClockDecidesNothingButWhetherAFileHasExpired(t *testing.T) {
	s := sigstoretest.New(t)
	forms := identityForms(t, s, manifest, ci, tokens)
	other := identityForms(t, s, manifest, "mallory@example.com", tokens)
	synctest.Test(t, func(t *testing.T) {
		if time.Now().Year() != 2000 {
			t.Fatal("the clock is not that of the bubble")
		}
		early := trustCI(t, s.Root)
		acceptAll := func() {
			for i := range forms {
				accept(t, early, forms[i].e)
				if _, err := early.Verify(t.Context(), other[i].e); !errdefs.IsPermissionDenied(err) {
					t.Errorf("%s: %v", other[i].name, err)
				}
			}
		}
		acceptAll()
		time.Sleep(100 * 365 * 24 * time.Hour)
		acceptAll()
		rejectLoad(t, rootConfig(trust.Identity{Issuer: tokens, Subject: ci}), "has expired: the last of its certificate authorities ended on", s.Root)
	})
	trustCI(t, s.Root) // today it has not
}

func TestExpressionMustMatchTheWholeIdentity(t *testing.T) {
	s := sigstoretest.New(t)
	config := rootConfig(trust.Identity{IssuerRegexp: `https://token\.example\.com|x`, SubjectRegexp: `ci@example\.com|y`})
	v := loaded(t, config, s.Root)
	got := accept(t, v, bundleOf(s.Signature(t, subject, "ci@example.com", tokens)))
	if got.Identity != "ci@example.com (issuer https://token.example.com)" || got.Kind != evidence.Signature {
		t.Errorf("%+v", got)
	}
	for _, row := range [][2]string{
		{"ci@example.com.evil.org", tokens}, {"aci@example.com", tokens},
		{"ci@example.com", tokens + ".evil.org"}, {"ci@example.com", "http://evil.org/?" + tokens},
		{"ci@example.com\n", tokens},
	} {
		_, err := v.Verify(t.Context(), bundleOf(s.Signature(t, subject, row[0], row[1])))
		if !errdefs.IsPermissionDenied(err) || strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%q: %v", row, err)
		}
	}
}

func TestTimeIsTheEarliest(t *testing.T) {
	at := func(s int64) verify.TimestampVerificationResult {
		return verify.TimestampVerificationResult{Timestamp: time.Unix(s, 0)}
	}
	if got := earliest([]verify.TimestampVerificationResult{at(2), at(1), at(3)}); got.Unix() != 1 {
		t.Errorf("at %s", got)
	}
}

func TestDifferentIdentitiesHaveDifferentNames(t *testing.T) {
	seen := map[string][2]string{}
	for _, id := range [][2]string{
		{"a", "b"}, {"a (issuer b)", "c"}, {"a", "b) (issuer c"}, {`"a"`, "b"}, {"a\n", "b"}, {"a", ""}, {"", "a"}, {"ä", "b"}, {`a\n`, "b"},
	} {
		name := identityOf(id[0], id[1])
		if before, ok := seen[name]; ok {
			t.Errorf("%q and %q are both %s", before, id, name)
		}
		seen[name] = id
		for _, r := range name {
			if r < ' ' || r > '~' {
				t.Errorf("%q is not fit to be printed", name)
			}
		}
	}
}
