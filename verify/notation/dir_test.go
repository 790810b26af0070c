package notation

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/notaryproject/notation-core-go/signature"

	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
)

var dirConfig = trust.Config{NotationDir: "/etc/notation"}

// policy is a trust policy's statement as notation writes it.
type policy map[string]any

func strictPolicy(changes ...func(policy)) policy {
	p := policy{
		"name":                  "vendor",
		"registryScopes":        []string{"*"},
		"signatureVerification": map[string]any{"level": "strict"},
		"trustStores":           []string{"ca:vendor"},
		"trustedIdentities":     []string{"x509.subject: " + notationtest.Subject},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func with(key string, value any) func(policy) { return func(p policy) { p[key] = value } }

// policyJSON is trustpolicy.json with the statements.
func policyJSON(statements ...policy) trust.File {
	data, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": statements})
	if err != nil {
		panic(err)
	}
	return trust.File{Path: "trustpolicy.json", Data: data}
}

func stored(kind, name string, data []byte) trust.File {
	return trust.File{Path: fmt.Sprintf("truststore/x509/%s/%s/root.pem", kind, name), Data: data}
}

func loadedDir(t testing.TB, files ...trust.File) trust.Verifier {
	t.Helper()
	return must[trust.Verifier](t)(Loader{}.Load(dirConfig, files))
}

func TestDirectoryVerifiesAsNotationDoes(t *testing.T) {
	s := newSigner(t)
	for name, files := range map[string][]trust.File{
		"PEM":       {policyJSON(strictPolicy()), stored("ca", "vendor", s.RootPEM())},
		"DER":       {policyJSON(strictPolicy()), {Path: "truststore/x509/ca/vendor/root.crt", Data: s.Root.Raw}},
		"any":       {policyJSON(strictPolicy(with("trustedIdentities", []string{"*"}))), stored("ca", "vendor", s.RootPEM())},
		"notation2": {{Path: "trustpolicy.oci.json", Data: policyJSON(strictPolicy()).Data}, stored("ca", "vendor", s.RootPEM())},
		"both, alike": {policyJSON(strictPolicy()), {Path: "trustpolicy.oci.json", Data: policyJSON(strictPolicy()).Data},
			stored("ca", "vendor", s.RootPEM())},
		"others": {{Path: "config.json", Data: []byte("{")}, {Path: "localkeys/a.key", Data: []byte("-----BEGIN PRIVATE KEY-----")},
			policyJSON(strictPolicy()), stored("ca", "vendor", s.RootPEM()), stored("ca", "unused", []byte("junk"))},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, mediaType string) {
				v := loadedDir(t, files...)
				if got := accepted(t, v, sign(t, s, mediaType)); got.Identity != notationtest.Identity || len(got.Notes) != 1 {
					t.Errorf("verified as %+v", got)
				}
				denied(t, v, sign(t, newSigner(t), mediaType), errdefs.ErrPermissionDenied, "root that is not trusted")
				if facts := v.Facts(); !facts.Expires.Equal(s.Root.NotAfter) || !facts.Issued.Equal(s.Root.NotBefore) || facts.Identities != 0 {
					t.Errorf("facts are %+v", facts)
				}
			})
		})
	}
}

func TestSelfSignedSigningCertificateIsTrustedInTheDirectory(t *testing.T) {
	s := newSigner(t)
	self := must[*x509.Certificate](t)(notationtest.Certificate(s.Leaf, s.Leaf, s.Key.Public(), s.Key))
	e := sign(t, s, notationtest.JWS, func(r *signature.SignRequest) {
		r.Signer = must[signature.LocalSigner](t)(signature.NewLocalSigner([]*x509.Certificate{self}, s.Key))
	})
	accepted(t, loadedDir(t, policyJSON(strictPolicy()), stored("ca", "vendor", notationtest.PEM(self))), e)
	denied(t, loadedDir(t, policyJSON(strictPolicy()), stored("ca", "vendor", s.RootPEM())), e, errdefs.ErrPermissionDenied, "not trusted")
}

// A level that logs would let pass what is not authentic, or has expired.
func TestLevelsThatLogAreRefused(t *testing.T) {
	s := newSigner(t)
	level := func(level string, override map[string]string) []trust.File {
		v := map[string]any{"level": level}
		if override != nil {
			v["override"] = override
		}
		return []trust.File{policyJSON(strictPolicy(with("signatureVerification", v))), stored("ca", "vendor", s.RootPEM())}
	}
	for name, files := range map[string][]trust.File{
		"strict":              level("strict", nil),
		"revocation skipped":  level("strict", map[string]string{"revocation": "skip"}),
		"revocation logged":   level("strict", map[string]string{"revocation": "log"}),
		"as good as strict":   level("permissive", map[string]string{"authenticTimestamp": "enforce", "expiry": "enforce"}),
		"said to be enforced": level("strict", map[string]string{"authenticity": "enforce"}),
	} {
		t.Run(name, func(t *testing.T) {
			accepted(t, loadedDir(t, files...), sign(t, s, notationtest.JWS))
			old := newSigner(t, validFrom(-time.Hour, -time.Minute))
			files[1].Data = old.RootPEM()
			denied(t, loadedDir(t, files...), sign(t, old, notationtest.JWS), errdefs.ErrInvalidArgument, "expired")
		})
	}
	for name, files := range map[string][]trust.File{
		"audit":               level("audit", nil),
		"permissive":          level("permissive", nil),
		"half strict":         level("permissive", map[string]string{"expiry": "enforce"}),
		"authenticity logged": level("strict", map[string]string{"authenticity": "log"}),
		"expiry logged":       level("strict", map[string]string{"expiry": "log"}),
		"timestamp logged":    level("strict", map[string]string{"authenticTimestamp": "log"}),
		"timestamp skipped":   level("strict", map[string]string{"authenticTimestamp": "skip"}),
		"integrity":           level("strict", map[string]string{"integrity": "log"}),
		"unknown":             level("lenient", nil),
		"none":                level("", nil),
		"skip":                {policyJSON(strictPolicy(with("signatureVerification", map[string]any{"level": "skip"}), with("trustStores", nil), with("trustedIdentities", nil)))},
	} {
		t.Run(name, func(t *testing.T) {
			refusedAtLoad(t, dirConfig, files, `statement "vendor"`, `{"level": "strict"}`)
		})
	}
}

func TestStatementIsChosenByRepository(t *testing.T) {
	app, rest := newSigner(t), newSigner(t)
	forApp := strictPolicy(with("name", "app"), with("registryScopes", []string{"registry.example.com/app", "registry.example.com:5000/app"}), with("trustStores", []string{"ca:app"}))
	forRest := strictPolicy(with("name", "rest"), with("trustStores", []string{"ca:rest"}))
	stores := []trust.File{stored("ca", "app", app.RootPEM()), stored("ca", "rest", rest.RootPEM())}
	both := loadedDir(t, append(stores, policyJSON(forRest, forApp))...)
	only := loadedDir(t, append(stores, policyJSON(forApp))...)
	for repository, signer := range map[string]*notationtest.Signer{
		"registry.example.com/app":      app,
		"registry.example.com:5000/app": app,
		"registry.example.com/app/more": rest,
		"registry.example.com/ap":       rest,
		"":                              rest,
		"*":                             rest,
	} {
		t.Run(repository, func(t *testing.T) {
			other := rest
			if signer == rest {
				other = app
			}
			e := sign(t, signer, notationtest.COSE)
			e.Repository = repository
			accepted(t, both, e)
			strange := sign(t, other, notationtest.COSE)
			strange.Repository = repository
			denied(t, both, strange, errdefs.ErrPermissionDenied, "root that is not trusted")
			if signer == app {
				accepted(t, only, e)
			} else {
				denied(t, only, e, errdefs.ErrPermissionDenied, "no statement for repository")
			}
		})
	}
}

func TestDirectoryIsRefusedWithTheRemedy(t *testing.T) {
	s := newSigner(t)
	ca := stored("ca", "vendor", s.RootPEM())
	raw := func(text string) trust.File { return trust.File{Path: "trustpolicy.json", Data: []byte(text)} }
	good := string(policyJSON(strictPolicy()).Data)
	loadedDir(t, raw(good), ca) // the twin of all that follow
	for name, c := range map[string]struct {
		files []trust.File
		want  string
	}{
		"nothing":              {nil, "no trustpolicy.json"},
		"elsewhere":            {[]trust.File{{Path: "sub/trustpolicy.json", Data: []byte(good)}, ca}, "no trustpolicy.json"},
		"empty":                {[]trust.File{raw(""), ca}, "is not to be read"},
		"no JSON":              {[]trust.File{raw("level: strict"), ca}, "is not to be read"},
		"cut off":              {[]trust.File{raw(good[:len(good)-1]), ca}, "is not to be read"},
		"two values":           {[]trust.File{raw(good + good), ca}, "more than one"},
		"name twice":           {[]trust.File{raw(strings.Replace(good, `"name"`, `"NAME":"a","name"`, 1)), ca}, "occurs twice"},
		"unknown field":        {[]trust.File{raw(strings.Replace(good, `"name"`, `"names":[],"name"`, 1)), ca}, `unknown field "names"`},
		"unknown version":      {[]trust.File{raw(strings.Replace(good, `1.0`, `2.0`, 1)), ca}, "version"},
		"no statement":         {[]trust.File{policyJSON(), ca}, "zero trust policy statements"},
		"two policies":         {[]trust.File{raw(good), {Path: "trustpolicy.oci.json", Data: []byte("{}")}, ca}, "which differ"},
		"statements for one":   {[]trust.File{policyJSON(strictPolicy(), strictPolicy(with("name", "b"))), ca}, "multiple trust policy statements"},
		"scope with wildcard":  {[]trust.File{policyJSON(strictPolicy(with("registryScopes", []string{"registry.example.com/*"}))), ca}, "wild card"},
		"no scope":             {[]trust.File{policyJSON(strictPolicy(with("registryScopes", []string{}))), ca}, "zero registry scopes"},
		"no identity":          {[]trust.File{policyJSON(strictPolicy(with("trustedIdentities", []string{}))), ca}, "trusted identities"},
		"identity of a plugin": {[]trust.File{policyJSON(strictPolicy(with("trustedIdentities", []string{"x509.subject:" + notationtest.Subject, "arn:aws:signer"}))), ca}, "needs a plugin"},
		"identity, no state":   {[]trust.File{policyJSON(strictPolicy(with("trustedIdentities", []string{"x509.subject: C=US, O=Vendor"}))), ca}, `'ST'`},
		"no store":             {[]trust.File{raw(good), stored("ca", "other", s.RootPEM())}, "has no file below truststore/x509/ca/vendor"},
		"store of other type":  {[]trust.File{raw(good), stored("tsa", "vendor", s.RootPEM())}, "has no file below"},
		"unknown store type":   {[]trust.File{policyJSON(strictPolicy(with("trustStores", []string{"gpg:vendor"}))), ca}, "gpg"},
		"key in the store":     {[]trust.File{raw(good), stored("ca", "vendor", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))}, "private key"},
		"leaf in the store":    {[]trust.File{raw(good), stored("ca", "vendor", notationtest.PEM(s.Leaf))}, "not a CA"},
		"empty in the store":   {[]trust.File{raw(good), stored("ca", "vendor", nil)}, "no certificate"},
		"junk in the store":    {[]trust.File{raw(good), ca, {Path: "truststore/x509/ca/vendor/.DS_Store", Data: []byte("x")}}, "neither PEM nor DER"},
		"directory in it":      {[]trust.File{raw(good), ca, {Path: "truststore/x509/ca/vendor/old/a.pem", Data: s.RootPEM()}}, "lies in a directory"},
	} {
		t.Run(name, func(t *testing.T) { refusedAtLoad(t, dirConfig, c.files, c.want) })
	}
}

func TestStoreForTimestampsHoldsRoots(t *testing.T) {
	s := newSigner(t)
	between := *s.Root
	between.Subject.CommonName, between.RawSubject = "Intermediate", nil
	intermediate := must[*x509.Certificate](t)(notationtest.Certificate(&between, s.Root, s.Key.Public(), s.RootKey))
	files := func(kind string, data []byte) []trust.File {
		return []trust.File{policyJSON(strictPolicy(with("trustStores", []string{"ca:vendor", kind + ":more"}))),
			stored("ca", "vendor", s.RootPEM()), stored(kind, "more", data)}
	}
	loadedDir(t, files("ca", notationtest.PEM(intermediate))...)
	loadedDir(t, files("tsa", s.RootPEM())...)
	refusedAtLoad(t, dirConfig, files("tsa", notationtest.PEM(intermediate)), "is no root")
}

// A signing authority, which only the directory can name, vouches for the time of signing.
func TestSigningAuthorityVouchesForTheTime(t *testing.T) {
	old := newSigner(t, validFrom(-3*time.Hour, -2*time.Hour), func(root, _ *x509.Certificate) { root.NotBefore = time.Now().Add(-3 * time.Hour) })
	each(t, func(t *testing.T, mediaType string) {
		signed := time.Now().Add(-150 * time.Minute).Truncate(time.Second)
		at := func(scheme signature.SigningScheme) func(*signature.SignRequest) {
			return func(r *signature.SignRequest) { r.SigningScheme, r.SigningTime = scheme, signed }
		}
		// The root's time is over as well where the chain was valid when it signed.
		root := newSigner(t, func(root, leaf *x509.Certificate) {
			for _, cert := range []*x509.Certificate{root, leaf} {
				cert.NotBefore, cert.NotAfter = time.Now().Add(-3*time.Hour), time.Now().Add(-2*time.Hour)
			}
		})
		authority := loadedDir(t, policyJSON(strictPolicy(with("trustStores", []string{"signingAuthority:vendor"}))), stored("signingAuthority", "vendor", root.RootPEM()))
		got := accepted(t, authority, sign(t, root, mediaType, at(signature.SigningSchemeX509SigningAuthority)))
		if !got.Time.Equal(signed) {
			t.Errorf("signed at %s, want %s", got.Time, signed)
		}
		denied(t, authority, sign(t, root, mediaType, at(signature.SigningSchemeX509)), errdefs.ErrPermissionDenied, "no trusted certificates")
		ca := loadedDir(t, policyJSON(strictPolicy()), stored("ca", "vendor", old.RootPEM()))
		denied(t, ca, sign(t, old, mediaType, at(signature.SigningSchemeX509)), errdefs.ErrInvalidArgument, "expired")
	})
}
