package notation

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
)

// refusedAtLoad holds that a trust is refused with words that include each of texts.
func refusedAtLoad(t *testing.T, config trust.Config, files []trust.File, texts ...string) {
	t.Helper()
	_, err := Loader{}.Load(config, files)
	if !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Fatalf("loaded with %v, want a refusal with %q", err, texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("refused with %q, want %q", err, text)
		}
	}
}

func rootsConfig(subjects ...string) trust.Config {
	if len(subjects) == 0 {
		subjects = []string{notationtest.Subject}
	}
	return trust.Config{NotationRoots: []string{"/trust/ca.pem"}, Subjects: subjects}
}

func caFile(data []byte) []trust.File { return []trust.File{{Path: "/trust/ca.pem", Data: data}} }

func TestRootsAreRefusedWithTheRemedy(t *testing.T) {
	s := newSigner(t)
	refused := func(data []byte, texts ...string) {
		t.Helper()
		refusedAtLoad(t, rootsConfig(), caFile(data), append(texts, "/trust/ca.pem")...)
	}
	roots(t, s) // the twin of all that follow
	key := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(s.Key))
	refused(nil, "no certificate", "PEM")
	refused([]byte("\n"), "no certificate")
	refused(s.Root.Raw, "no certificate") // DER
	refused(notationtest.PEM(s.Leaf), "no certificate authority", "root that issued it")
	refused(append(s.RootPEM(), notationtest.PEM(s.Leaf)...), "no certificate authority")
	refused(append(s.RootPEM(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), "private key")
	refused(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}), "private key")
	refused(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: key}), `"PUBLIC KEY"`)
	refused(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: key}), "certificate 1", "does not parse")
	refused(append(s.RootPEM(), s.RootPEM()[:100]...), "does not decode", "cut off")
	noSign := newSigner(t, func(root, _ *x509.Certificate) { root.KeyUsage = x509.KeyUsageDigitalSignature })
	refused(noSign.RootPEM(), "may not sign certificates")
	selfSigned := must[*x509.Certificate](t)(notationtest.Certificate(s.Leaf, s.Leaf, s.Key.Public(), s.Key))
	refused(notationtest.PEM(selfSigned), "signs for itself", "notation_dir")
	refusedAtLoad(t, rootsConfig(), nil, "no file of notation_roots")
}

func TestRootsWhoseTimeIsOverAreRefused(t *testing.T) {
	rootUntil := func(from, until time.Duration) *notationtest.Signer {
		return newSigner(t, func(root, _ *x509.Certificate) {
			root.NotBefore, root.NotAfter = time.Now().Add(from), time.Now().Add(until)
		})
	}
	valid, expired, future := rootUntil(-time.Hour, time.Hour), rootUntil(-2*time.Hour, -time.Hour), rootUntil(time.Hour, 2*time.Hour)
	roots(t, valid)
	refusedAtLoad(t, rootsConfig(), caFile(expired.RootPEM()), "has expired at", "the root that signs now")
	refusedAtLoad(t, rootsConfig(), caFile(future.RootPEM()), "is not valid before", "clock")
	// One that is valid is enough, for the time of a rotation.
	all := slices.Concat(expired.RootPEM(), valid.RootPEM(), future.RootPEM())
	v := must[trust.Verifier](t)(Loader{}.Load(rootsConfig(), caFile(all)))
	accepted(t, v, sign(t, valid, notationtest.JWS))
}

func TestSubjectsAreRefusedWithTheRemedy(t *testing.T) {
	s := newSigner(t)
	roots(t, s, notationtest.Subject, "C=US, ST=WA, O=Vendor, CN=Other")
	for name, subjects := range map[string][]string{
		"wildcard":     {"*"},
		"nothing":      {""},
		"no name":      {"Release"},
		"no state":     {"C=US, O=Vendor, CN=Release"},
		"no country":   {"ST=WA, O=Vendor"},
		"part twice":   {"C=US, ST=WA, O=Vendor, CN=a, CN=b"},
		"several":      {"C=US+ST=WA, O=Vendor"},
		"encoded":      {"C=US, ST=WA, O=#0c0141"},
		"twice":        {notationtest.Subject, notationtest.Subject},
		"one in other": {notationtest.Subject, "C=US, ST=WA, O=Vendor"},
	} {
		t.Run(name, func(t *testing.T) {
			refusedAtLoad(t, rootsConfig(subjects...), caFile(s.RootPEM()), "subjects", "with C, ST and O")
		})
	}
	refusedAtLoad(t, rootsConfig("C=US, ST=WA, O="+strings.Repeat("+", 5000)), caFile(s.RootPEM()), "bytes, more than 4096")
}

func TestOtherKindsAreNotLoaded(t *testing.T) {
	if kinds := (Loader{}).Kinds(); !slices.Equal(kinds, []trust.Kind{trust.Notation}) {
		t.Errorf("kinds are %q", kinds)
	}
	refusedAtLoad(t, trust.Config{Keys: []string{"/a"}}, nil, "kind")
	refusedAtLoad(t, trust.Config{}, nil, "nothing to trust")
}

func TestFactsSayWhatEndsFirst(t *testing.T) {
	at := func(from, until time.Duration) *notationtest.Signer {
		return newSigner(t, func(root, _ *x509.Certificate) {
			root.NotBefore, root.NotAfter = time.Now().Add(from), time.Now().Add(until)
		})
	}
	expired, first, last := at(-3*time.Hour, -time.Minute), at(-time.Hour, time.Hour), at(-2*time.Hour, 5*time.Hour)
	files := []trust.File{
		{Path: "/trust/a.pem", Data: append(last.RootPEM(), expired.RootPEM()...)},
		{Path: "/trust/b.pem", Data: first.RootPEM()},
	}
	config := trust.Config{NotationRoots: []string{"/trust/a.pem", "/trust/b.pem"}, Subjects: []string{notationtest.Subject}}
	v := must[trust.Verifier](t)(Loader{}.Load(config, files))
	facts := v.Facts()
	if !facts.Expires.Equal(first.Root.NotAfter) || !facts.Issued.Equal(first.Root.NotBefore) {
		t.Errorf("expires %s and issued %s, want %s and %s", facts.Expires, facts.Issued, first.Root.NotAfter, first.Root.NotBefore)
	}
	if facts.Identities != 0 || facts.Names != nil {
		t.Errorf("it claims a bound: %+v", facts)
	}
	for _, s := range []*notationtest.Signer{first, last} {
		accepted(t, v, sign(t, s, notationtest.COSE))
	}
}

func TestCommentsAroundCertificatesAreNoMatter(t *testing.T) {
	s := newSigner(t)
	data := bytes.Join([][]byte{[]byte("# the vendor's root\n"), s.RootPEM(), []byte("\n# end\n")}, nil)
	accepted(t, must[trust.Verifier](t)(Loader{}.Load(rootsConfig(), caFile(data))), sign(t, s, notationtest.JWS))
}
