package notation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notaryproject/notation-go/dir"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"

	rules "github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// pathOCIPolicy is where notation 2 writes the policy; notation 1 reads [dir.PathTrustPolicy].
const pathOCIPolicy = "trustpolicy.oci.json"

// strict is what to write where a statement asks for less.
const strict = `write "signatureVerification": {"level": "strict"}`

// loadDir makes a verifier of notation's own directory.
func loadDir(files []trust.File) (*verifier, error) {
	byPath := make(map[string]trust.File, len(files))
	for _, file := range files {
		byPath[path.Clean(filepath.ToSlash(file.Path))] = file
	}
	file, err := policyFile(byPath)
	if err != nil {
		return nil, err
	}
	doc, err := parsePolicy(file)
	if err != nil {
		return nil, err
	}
	store, statements := make(memoryStore), make(map[string]*statement)
	for _, policy := range doc.TrustPolicies {
		if err := checkStatement(file.Path, policy); err != nil {
			return nil, err
		}
		for _, name := range policy.TrustStores {
			if _, read := store[name]; read {
				continue
			}
			if err := store.read(name, byPath); err != nil {
				return nil, fmt.Errorf("%s: statement %q: %w", file.Path, policy.Name, err)
			}
		}
		st, err := newStatement(policy, store)
		if err != nil {
			return nil, invalid(fmt.Sprintf("%s: %v", file.Path, err), "correct the statement")
		}
		for _, scope := range policy.RegistryScopes {
			statements[scopeOf(scope)] = st
		}
	}
	return newVerifier(statements, store)
}

// policyFile returns the file that holds the trust policy. Two that differ are refused: which
// one counts depends on the version of notation.
func policyFile(files map[string]trust.File) (trust.File, error) {
	one, hasOne := files[dir.PathTrustPolicy]
	two, hasTwo := files[pathOCIPolicy]
	switch {
	case !hasOne && !hasTwo:
		return trust.File{}, invalid("notation_dir has no "+dir.PathTrustPolicy, "name the directory that holds it, such as /etc/notation")
	case hasOne && hasTwo && !bytes.Equal(one.Data, two.Data):
		return trust.File{}, invalid(fmt.Sprintf("notation_dir has %s and %s, which differ", dir.PathTrustPolicy, pathOCIPolicy), "remove the one that is out of date")
	case hasTwo:
		return two, nil
	}
	return one, nil
}

// parsePolicy parses a trust policy. A field that notation does not know is refused, as it
// would change nothing.
func parsePolicy(file trust.File) (*trustpolicy.Document, error) {
	if err := unambiguous(file.Data); err != nil {
		return nil, invalid(fmt.Sprintf("%s is not to be read: %v", file.Path, err), "write a trust policy of the Notary Project, JSON")
	}
	var doc trustpolicy.Document
	dec := json.NewDecoder(bytes.NewReader(file.Data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, invalid(fmt.Sprintf("%s is not to be read: %v", file.Path, err), "write a trust policy of the Notary Project, version 1.0")
	}
	for _, policy := range doc.TrustPolicies { // before notation's check, whose words fit less
		if err := checkLevel(file.Path, policy); err != nil {
			return nil, err
		}
	}
	if err := doc.Validate(); err != nil {
		return nil, invalid(fmt.Sprintf("%s: %v", file.Path, err), "correct it; notation policy show says the same")
	}
	return &doc, nil
}

// checkLevel refuses a statement that lets pass what is not authentic or has expired: such a
// signature would count as one.
func checkLevel(file string, policy trustpolicy.TrustPolicy) error {
	level, err := policy.SignatureVerification.GetVerificationLevel()
	if err != nil {
		return invalid(fmt.Sprintf("%s: statement %q: %v", file, policy.Name, err), strict)
	}
	for _, must := range []trustpolicy.ValidationType{
		trustpolicy.TypeIntegrity, trustpolicy.TypeAuthenticity, trustpolicy.TypeAuthenticTimestamp, trustpolicy.TypeExpiry,
	} {
		if action := level.Enforcement[must]; action != trustpolicy.ActionEnforce {
			return invalid(fmt.Sprintf("%s: statement %q has level %q, and %q is %q: what fails that would count as a signature",
				file, policy.Name, policy.SignatureVerification.VerificationLevel, must, action), strict)
		}
	}
	return nil
}

// checkStatement refuses identities that only a plugin understands: notation passes over them
// where another one matches.
func checkStatement(file string, policy trustpolicy.TrustPolicy) error {
	for _, identity := range policy.TrustedIdentities {
		subject, isSubject := strings.CutPrefix(identity, x509Subject)
		if identity == everywhere {
			continue
		}
		if !isSubject {
			return invalid(fmt.Sprintf("%s: statement %q trusts %q, which needs a plugin of notation; none is run here", file, policy.Name, cut(identity)),
				`write "x509.subject: …"`)
		}
		if err := checkSubject(subject); err != nil {
			return fmt.Errorf("%s: statement %q: %w", file, policy.Name, err)
		}
	}
	return nil
}

// read reads a trust store, "type:name", from the files of the directory.
func (s memoryStore) read(name string, files map[string]trust.File) error {
	kind, named, _ := strings.Cut(name, ":")
	below := dir.X509TrustStoreDir(kind, named) + "/"
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasPrefix(p, below) {
			continue
		}
		if strings.Contains(strings.TrimPrefix(p, below), "/") {
			return invalid(fmt.Sprintf("%s lies in a directory of the trust store", p), "put the file into "+below)
		}
		certs, err := parseStored(files[p])
		if err != nil {
			return err
		}
		if err := checkStored(truststore.Type(kind), certs); err != nil {
			return invalid(fmt.Sprintf("%s: %v", p, err), "write the certificate authority's")
		}
		s.add(truststore.Type(kind), named, certs)
	}
	if len(s[name]) == 0 {
		return invalid(fmt.Sprintf("its trust store %q has no file below %s", name, below), "put the certificates there, PEM")
	}
	return nil
}

// scopeOf returns the one spelling that a scope and a repository are compared in: a reference
// that spells the registry otherwise must not get the statement for all others.
func scopeOf(repository string) string {
	if repository == everywhere || repository == "" {
		return repository
	}
	return rules.NormalizeRepository(repository)
}
