package notation

import (
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"

	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// Loader makes verifiers of trusts of kind [trust.Notation].
type Loader struct{}

var _ trust.Loader = Loader{}

// Kinds are those of trusts that it makes verifiers of.
func (Loader) Kinds() []trust.Kind { return []trust.Kind{trust.Notation} }

// Load makes a verifier. For Config.NotationDir the files are those below it, each with its
// path below it: trustpolicy.json and what the trust stores hold. Others are ignored.
func (Loader) Load(config trust.Config, files []trust.File) (trust.Verifier, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	if config.Kind() != trust.Notation {
		return nil, invalid(fmt.Sprintf("it is of kind %q", config.Kind()), "write notation_roots or notation_dir")
	}
	if config.NotationDir != "" {
		return loadDir(files)
	}
	return loadRoots(config.Subjects, files)
}

// rootsStore is the name of the trust store that notation_roots make.
const rootsStore = "notation_roots"

// loadRoots makes a verifier of root certificates, with a trust policy of our own.
func loadRoots(subjects []string, files []trust.File) (*verifier, error) {
	if len(files) == 0 {
		return nil, invalid("no file of notation_roots was read", "write the root certificates, PEM")
	}
	store := make(memoryStore)
	for _, file := range files {
		certs, err := parsePEM(file)
		if err != nil {
			return nil, err
		}
		for _, cert := range certs {
			if err := checkRoot(file.Path, cert); err != nil {
				return nil, err
			}
		}
		store.add(truststore.TypeCA, rootsStore, certs)
	}
	identities := make([]string, len(subjects))
	for i, subject := range subjects {
		if err := checkSubject(subject); err != nil {
			return nil, err
		}
		identities[i] = x509Subject + subject
	}
	st, err := newStatement(trustpolicy.TrustPolicy{
		Name:              "notation_roots",
		TrustStores:       []string{string(truststore.TypeCA) + ":" + rootsStore},
		TrustedIdentities: identities,
	}, store)
	if err != nil {
		return nil, invalid(fmt.Sprintf("subjects = %q: %v", subjects, err),
			`write each once, as the certificate has it, with C, ST and O: "C=US, ST=WA, O=Vendor, CN=Release"`)
	}
	return newVerifier(map[string]*statement{everywhere: st}, store)
}

// newVerifier makes a verifier of the statements by their scopes, unless the time of what
// they trust is over.
func newVerifier(statements map[string]*statement, store memoryStore) (*verifier, error) {
	now := time.Now()
	for _, st := range statements {
		if err := st.checkTime(store, now); err != nil {
			return nil, err
		}
	}
	return &verifier{statements: statements, facts: store.facts(now)}, nil
}

func invalid(what, remedy string) error {
	return fmt.Errorf("%s; %s: %w", what, remedy, errdefs.ErrInvalidArgument)
}

var errNoCertificate = errors.New("it holds no certificate")
