package trust_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// words is a loader of trusts whose files are words: evidence is verified that is one of them.
// "bad" does not load, "panic" panics, and a word with a year is of that time.
type words struct{ kinds []trust.Kind }

func (l words) Kinds() []trust.Kind { return l.kinds }

func (l words) Load(_ trust.Config, files []trust.File) (trust.Verifier, error) {
	v := &speller{}
	for _, f := range files {
		for _, word := range strings.Fields(string(f.Data)) {
			if word == "bad" {
				return nil, fmt.Errorf("%s: it is bad: %w", f.Path, errdefs.ErrInvalidArgument)
			}
			v.words = append(v.words, word)
			if issued, err := time.Parse("2006", word); err == nil {
				v.issued = issued
			}
			if expires, err := time.Parse("until-2006", word); err == nil {
				v.expires = expires
			}
		}
	}
	return v, nil
}

type speller struct {
	words           []string
	issued, expires time.Time
}

func (v *speller) Verify(_ context.Context, e evidence.Evidence) (evidence.Verified, error) {
	switch word := string(e.Data); {
	case word == "panic":
		panic("a line\n" + strings.Repeat("x", 1000))
	case slices.Contains(v.words, word):
		return evidence.Verified{Kind: evidence.Signature, Identity: word}, nil
	}
	return evidence.Verified{}, fmt.Errorf("it is none of theirs: %w", errdefs.ErrPermissionDenied)
}

func (v *speller) Facts() trust.Facts {
	return trust.Facts{Identities: len(v.words), Names: v.words, Issued: v.issued, Expires: v.expires}
}

func all() trust.Loader { return words{[]trust.Kind{trust.Keys, trust.TrustedRoot, trust.Notation}} }

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// replace puts a file in the place of another, as an editor or a configuration tool does.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.Rename(write(t, path+".new", text), path); err != nil {
		t.Fatal(err)
	}
}

func verifies(s *trust.Set, name, word string) bool {
	_, err := s.Verify(context.Background(), name, evidence.Evidence{Data: []byte(word)})
	return err == nil
}

// A trust's files are read again when they change. What cannot be read leaves the last that
// could, and says so.
func TestTrustIsReadAgain(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(t.TempDir(), "release.pub"), "old")
	store, err := trust.Open(map[string]trust.Config{"release": {Keys: []string{path}}}, all())
	if err != nil {
		t.Fatal(err)
	}
	first := store.Now(t.Context())
	if !verifies(first, "release", "old") || verifies(first, "release", "new") || first.Generation == 0 {
		t.Fatal("the first files are not in force")
	}
	if again := store.Now(t.Context()); again != first {
		t.Error("nothing has changed, and the set is another")
	}
	replace(t, path, "new")
	second := store.Now(t.Context())
	if !verifies(second, "release", "new") || verifies(second, "release", "old") || second.Generation <= first.Generation {
		t.Error("new files are not in force")
	}
	if !verifies(first, "release", "old") {
		t.Error("a set has changed")
	}
	for what, damage := range map[string]func(){
		"does not load":  func() { replace(t, path, "bad") },
		"is empty":       func() { replace(t, path, "") },
		"is gone":        func() { _ = os.Remove(path) },
		"is a directory": func() { _ = os.Remove(path); _ = os.Mkdir(path, 0o700) },
	} {
		damage()
		broken := store.Now(t.Context())
		if !verifies(broken, "release", "new") || broken.States()[0].Broken == "" {
			t.Errorf("a file that %s: %+v, want that the last good one counts", what, broken.States()[0])
		}
		if same := store.Now(t.Context()); same != broken {
			t.Errorf("a file that %s: it is still so, and the set is another", what)
		}
		_ = os.RemoveAll(path)
		replace(t, path, "new")
		if mended := store.Now(t.Context()); mended.States()[0].Broken != "" || !verifies(mended, "release", "new") {
			t.Errorf("a file that %s is mended: %+v", what, mended.States()[0])
		}
	}
}

// The same bytes are the same trust, and other bytes of the same length another.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(t.TempDir(), "release.pub"), "aaa")
	open := func() string {
		store, err := trust.Open(map[string]trust.Config{"release": {Keys: []string{path}}}, all())
		if err != nil {
			t.Fatal(err)
		}
		return store.Now(t.Context()).States()[0].Fingerprint
	}
	first := open()
	if !strings.HasPrefix(first, "sha256:") || open() != first {
		t.Errorf("%q, and then %q", first, open())
	}
	if replace(t, path, "bbb"); open() == first {
		t.Error("other bytes have the same fingerprint")
	}
}

func TestTrustThatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, empty, bad := write(t, filepath.Join(dir, "good"), "word"), write(t, filepath.Join(dir, "empty"), ""), write(t, filepath.Join(dir, "is-bad"), "bad")
	large := write(t, filepath.Join(dir, "large"), strings.Repeat("x", 4<<20+1))
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	who := []trust.Identity{{Issuer: "https://token.example.com", Subject: "ci"}}
	for name, tc := range map[string]struct {
		config trust.Config
		want   string
	}{
		"nothing":                       {trust.Config{}, "names nothing to trust"},
		"two kinds":                     {trust.Config{Keys: []string{good}, NotationRoots: []string{good}, Subjects: []string{"CN=x"}}, "keys and notation_roots"},
		"a file that is not there":      {trust.Config{Keys: []string{filepath.Join(dir, "none")}}, "no such file"},
		"a relative path":               {trust.Config{Keys: []string{"release.pub"}}, `"release.pub" is not absolute`},
		"an empty path":                 {trust.Config{Keys: []string{good, ""}}, "is not absolute"},
		"an empty file":                 {trust.Config{Keys: []string{empty}}, "empty is empty"},
		"a directory":                   {trust.Config{Keys: []string{dir}}, "is a directory: name the files in it"},
		"a large file":                  {trust.Config{Keys: []string{large}}, "the limit is 4194304"},
		"a pipe":                        {trust.Config{Keys: []string{pipe}}, "no regular file"},
		"a file that does not load":     {trust.Config{Keys: []string{bad}}, "it is bad"},
		"a file for a directory":        {trust.Config{NotationDir: good}, "notation_dir is the directory"},
		"roots that trust everybody":    {trust.Config{TrustedRoot: []string{good}}, "without identities"},
		"roots of all vendors":          {trust.Config{NotationRoots: []string{good}}, "without subjects"},
		"identities of a key":           {trust.Config{Keys: []string{good}, Identities: who}, "identities without trusted_root"},
		"subjects of a key":             {trust.Config{Keys: []string{good}, Subjects: []string{"CN=x"}}, "subjects without notation_roots"},
		"an identity without an issuer": {trust.Config{TrustedRoot: []string{good}, Identities: []trust.Identity{who[0], {Subject: "x"}}}, "identity 2: it names no issuer"},
		"an identity without a subject": {trust.Config{TrustedRoot: []string{good}, Identities: []trust.Identity{{Issuer: "x"}}}, "it names no subject"},
		"an identity with both":         {trust.Config{TrustedRoot: []string{good}, Identities: []trust.Identity{{Issuer: "x", Subject: "x", SubjectRegexp: "x"}}}, "subject and subject_regexp"},
		"an expression that is none":    {trust.Config{TrustedRoot: []string{good}, Identities: []trust.Identity{{Issuer: "x", SubjectRegexp: "("}}}, "does not compile"},
		"a parenthesis that closes":     {trust.Config{TrustedRoot: []string{good}, Identities: []trust.Identity{{Issuer: "x", SubjectRegexp: "a)|(?:b"}}}, "does not compile"},
	} {
		if _, err := trust.Open(map[string]trust.Config{"release": tc.config}, all()); err == nil || !strings.Contains(err.Error(), "trust.release: ") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error of trust.release with %q", name, err, tc.want)
		}
	}
	if _, err := trust.Open(map[string]trust.Config{"re lease": {Keys: []string{good}}}, all()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a name with a space: %v", err)
	}
	if _, err := trust.Open(map[string]trust.Config{"release": {Keys: []string{good}}}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "built without verifiers of keys") {
		t.Errorf("a daemon without verifiers: %v", err)
	}
}

// Of notation's directory the trust policy and the trust store are read, and no private keys
// or plugins that lie beside them.
func TestNotationDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "trustpolicy.json"), "policy")
	write(t, filepath.Join(dir, "truststore/x509/ca/vendor/root.pem"), "root")
	write(t, filepath.Join(dir, "localkeys/vendor.key"), "private")
	write(t, filepath.Join(dir, "plugins/vendor/notation-vendor"), "bad")
	store, err := trust.Open(map[string]trust.Config{"vendor": {NotationDir: dir}}, all())
	if err != nil {
		t.Fatal(err)
	}
	now := store.Now(t.Context())
	for word, want := range map[string]bool{"policy": true, "root": true, "private": false} {
		if verifies(now, "vendor", word) != want {
			t.Errorf("%s is read: %v", word, !want)
		}
	}
	write(t, filepath.Join(dir, "truststore/x509/ca/vendor/second.pem"), "second")
	if !verifies(store.Now(t.Context()), "vendor", "second") {
		t.Error("a file that was added is not read")
	}
}

// A verifier that panics on bytes of a stranger refuses them.
func TestVerifierThatPanics(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(t.TempDir(), "key"), "word")
	store, err := trust.Open(map[string]trust.Config{"release": {Keys: []string{path}}}, all())
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Now(t.Context()).Verify(t.Context(), "release", evidence.Evidence{Data: []byte("panic")})
	if !errdefs.IsInvalidArgument(err) || len(err.Error()) > 400 || bytes.ContainsRune([]byte(err.Error()), '\n') {
		t.Errorf("%q", err)
	}
	if _, err := store.Now(t.Context()).Verify(t.Context(), "nobody", evidence.Evidence{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a trust that is none: %v", err)
	}
}

// Rules that no trust could ever meet are refused.
func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := trust.Open(map[string]trust.Config{
		"release": {Keys: []string{write(t, filepath.Join(dir, "a"), "one two")}},
		"backup":  {Keys: []string{write(t, filepath.Join(dir, "b"), "two three")}},
		"vendor":  {NotationRoots: []string{write(t, filepath.Join(dir, "c"), "x")}, Subjects: []string{"CN=x"}},
	}, all())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		signed   policy.Signed
		attested string
		want     string
	}{
		"one":                        {policy.Signed{By: []string{"release"}}, "", ""},
		"all of them":                {policy.Signed{By: []string{"release", "backup"}, AtLeast: 3}, "", ""},
		"more than all of them":      {policy.Signed{By: []string{"release", "backup"}, AtLeast: 4}, "", "have 3 different identities in all"},
		"nobody":                     {policy.Signed{By: []string{"releases"}}, "", `"releases", which is no trust; write one of backup, release, vendor`},
		"an attestation by a key":    {policy.Signed{By: []string{"release"}}, "x", ""},
		"an attestation by notation": {policy.Signed{By: []string{"vendor"}}, "x", "attest nothing"},
		"an attestation by either":   {policy.Signed{By: []string{"vendor", "release"}}, "x", ""},
		"a signature by notation":    {policy.Signed{By: []string{"vendor"}}, "", ""},
		"a repository that notation does not sign": {policy.Signed{By: []string{"vendor"}, SignedRepository: true}, "", "whose signatures name no repository"},
		"a repository that a key may sign":         {policy.Signed{By: []string{"vendor", "release"}, SignedRepository: true}, "", ""},
		"an attestation by too many ":              {policy.Signed{By: []string{"backup"}, AtLeast: 3}, "x", "have 2 different identities"},
	} {
		rule := policy.Rule{Repositories: []string{"**"}, Verify: policy.VerifyEnforce, Signed: []policy.Signed{tc.signed}}
		if tc.attested != "" {
			rule.Signed, rule.Attested = nil, []policy.Attested{{PredicateType: tc.attested, By: tc.signed.By, AtLeast: tc.signed.AtLeast}}
		}
		rules, err := policy.New([]policy.Rule{rule})
		if err != nil {
			t.Fatal(err)
		}
		switch err := store.Check(rules); {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.want != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "rule 1: ")):
			t.Errorf("%s: %v, want an errdefs.ErrInvalidArgument with %q", name, err, tc.want)
		}
	}
}

// The expressions of identities match all of a text.
func TestAnchored(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"ci@example.com", "ci@example.com", true},
		{"ci@example.com", "ci@example.com.evil.org", false},
		{"ci@example.com", "not-ci@example.com", false},
		{"a|b", "ab", false},
		{"a|b", "b", true},
		{"(?m)^a$", "a\nb", false},
		{"(?i)CI", "ci", true},
		{".*", "a\nb", false},
		{"", "", true},
		{"", "a", false},
	} {
		re, err := trust.Anchored(tc.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := re.MatchString(tc.text); got != tc.want {
			t.Errorf("%q matches %q: %v", tc.pattern, tc.text, got)
		}
	}
}

// The first end of a trust is that of all of them; one that never ends has no say.
func TestExpires(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(words ...string) *trust.Set {
		configs := map[string]trust.Config{}
		for i, word := range words {
			configs[fmt.Sprint("trust-", i)] = trust.Config{Keys: []string{write(t, filepath.Join(dir, fmt.Sprint(i)), word)}}
		}
		store, err := trust.Open(configs, all())
		if err != nil {
			t.Fatal(err)
		}
		return store.Now(t.Context())
	}
	for _, tc := range []struct {
		words []string
		want  int
	}{{[]string{"word"}, 1}, {[]string{"until-2040", "until-2030", "word"}, 2030}, {[]string{"word", "until-2030", "until-2040"}, 2030}} {
		if e := open(tc.words...).Expires(); e.Year() != tc.want {
			t.Errorf("%q end at %s, want %d", tc.words, e, tc.want)
		}
	}
}
