package trust

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Config is one trust as the operator writes it, table trust.<name>. It is of one kind: a
// rule's entry may name several trusts.
type Config struct {
	// Keys are files with public keys, PEM ("PUBLIC KEY"), one or more each. Any of them is
	// trusted, without a log.
	Keys []string `toml:"keys"`
	// TrustedRoot are sigstore's trusted_root.json files: authorities, logs and timestamp
	// authorities. Several are trusted side by side, for the time of a rotation.
	TrustedRoot []string `toml:"trusted_root"`
	// Identities are those of certificates that the roots issue. Any of them is trusted.
	Identities []Identity `toml:"identities"`
	// NotationRoots are files with root certificates, PEM, one or more each.
	NotationRoots []string `toml:"notation_roots"`
	// NotationDir is notation's own directory, with trustpolicy.json and truststore.
	NotationDir string `toml:"notation_dir"`
	// Subjects are the distinguished names of signing certificates that NotationRoots issue,
	// "C=US, ST=WA, O=Vendor, CN=Release": each part of one must be in the certificate's.
	// The Notary Project requires C, ST and O.
	Subjects []string `toml:"subjects"`
}

// Identity is whom a certificate of sigstore is issued to. The expressions are RE2 and must
// match all of the text.
type Identity struct {
	// Issuer or IssuerRegexp is the OIDC issuer.
	Issuer       string `toml:"issuer"`
	IssuerRegexp string `toml:"issuer_regexp"`
	// Subject or SubjectRegexp is the certificate's alternative name: a workflow, an address.
	Subject       string `toml:"subject"`
	SubjectRegexp string `toml:"subject_regexp"`
}

// Kind returns what the trust is made of.
func (c Config) Kind() Kind {
	switch {
	case len(c.TrustedRoot) > 0:
		return TrustedRoot
	case len(c.NotationRoots) > 0 || c.NotationDir != "":
		return Notation
	}
	return Keys
}

// namePattern is that of a trust's name, so that no message is ambiguous.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// Check checks a trust without looking at its files. The error names the key and says what
// to write; it is errdefs.ErrInvalidArgument.
func (c Config) Check() error {
	var kinds []string
	for _, k := range []struct {
		key     string
		written bool
	}{
		{"keys", len(c.Keys) > 0}, {"trusted_root", len(c.TrustedRoot) > 0},
		{"notation_roots", len(c.NotationRoots) > 0}, {"notation_dir", c.NotationDir != ""},
	} {
		if k.written {
			kinds = append(kinds, k.key)
		}
	}
	switch {
	case len(kinds) == 0:
		return invalid("it names nothing to trust", "write keys, trusted_root, notation_roots or notation_dir")
	case len(kinds) > 1:
		return invalid("it has "+strings.Join(kinds, " and "), `make a trust of each, and name both in by = ["…", "…"]`)
	case len(c.Identities) > 0 && c.Kind() != TrustedRoot:
		return invalid("identities without trusted_root", "a key has no identity: name the roots, or leave identities out")
	case len(c.Identities) == 0 && c.Kind() == TrustedRoot:
		return invalid("trusted_root without identities, which would trust whoever has an account", `write identities = [{ issuer = "…", subject = "…" }]`)
	case len(c.Subjects) > 0 && len(c.NotationRoots) == 0:
		return invalid("subjects without notation_roots", "notation_dir has its own in trustpolicy.json; a key has none")
	case len(c.Subjects) == 0 && len(c.NotationRoots) > 0:
		return invalid("notation_roots without subjects, which would trust every certificate of the roots", `write subjects = ["C=US, ST=WA, O=Vendor, CN=Release"]`)
	}
	for _, path := range slices.Concat(c.Keys, c.TrustedRoot, c.NotationRoots, []string{c.NotationDir}) {
		if path != "" && !filepath.IsAbs(path) || slices.Contains(slices.Concat(c.Keys, c.TrustedRoot, c.NotationRoots), "") {
			return invalid(fmt.Sprintf("the path %q is not absolute", path), "write it from the root of the file system, /etc/containerd/trust/…")
		}
	}
	for i, id := range c.Identities {
		if err := id.check(); err != nil {
			return fmt.Errorf("identity %d: %w", i+1, err)
		}
	}
	return nil
}

func (id Identity) check() error {
	for _, part := range []struct{ key, exact, pattern string }{
		{"issuer", id.Issuer, id.IssuerRegexp},
		{"subject", id.Subject, id.SubjectRegexp},
	} {
		switch {
		case part.exact == "" && part.pattern == "":
			return invalid("it names no "+part.key+", so that anybody's would do", fmt.Sprintf("write %s or %[1]s_regexp", part.key))
		case part.exact != "" && part.pattern != "":
			return invalid(fmt.Sprintf("it has %s and %[1]s_regexp", part.key), "leave one of them out")
		}
		if _, err := Anchored(part.pattern); err != nil {
			return invalid(fmt.Sprintf("%s_regexp = %q does not compile: %v", part.key, part.pattern, err), "write an RE2 expression, and in TOML with single quotes")
		}
	}
	return nil
}

// Anchored compiles an expression so that it matches nothing but all of a text: without that,
// "ci@example.com" accepts ci@example.com.evil.org. "" compiles to what matches "".
func Anchored(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil { // so that no parenthesis closes ours
		return nil, err
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

func invalid(what, remedy string) error {
	return fmt.Errorf("%s; %s: %w", what, remedy, errdefs.ErrInvalidArgument)
}
