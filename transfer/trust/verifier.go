// Package trust holds whom the operator trusts: keys, roots and identities, from files that
// are read again when they change.
//
// A [Config] is a trust as it is written, a [Store] all of them as they are now. The
// cryptography is that of a [Loader], which a daemon imports with the module verify.
package trust

import (
	"context"
	"time"

	"github.com/containerd/plugin"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// VerifierPlugin is the type of the plugins that verify evidence. The instance of each is a
// [Loader]. A daemon without them refuses rules that verify.
const VerifierPlugin plugin.Type = "io.transfer-referrers.verifier.v1"

// Kind is what a trust is made of.
type Kind string

// The kinds.
const (
	Keys        Kind = "keys"         // public keys
	TrustedRoot Kind = "trusted_root" // certificates of identities, by a sigstore instance
	Notation    Kind = "notation"     // certificates of the Notary Project
)

// File is one file of a trust, as it was read.
type File struct {
	// Path is where it lies, below Config.NotationDir for what lies there.
	Path string
	Data []byte
}

// Loader makes verifiers.
type Loader interface {
	// Kinds are those of trusts that it makes verifiers of.
	Kinds() []Kind
	// Load makes a verifier of a trust, from the files that the trust names: each that it
	// needs, in the order of the configuration. It opens no file and asks no network. The
	// error says what is wrong with what, and is errdefs.ErrInvalidArgument.
	Load(config Config, files []File) (Verifier, error)
}

// Verifier verifies evidence by one trust. It is safe for concurrent use, asks no network,
// and trusts nothing but what it was made of.
type Verifier interface {
	// Verify says what the evidence proves. The error says, for people to read, why it proves
	// nothing by this trust: errdefs.ErrNotImplemented for a format that the trust has no
	// say in, errdefs.ErrPermissionDenied where it is valid and by somebody else, and else
	// errdefs.ErrInvalidArgument. Text that comes from the network is cut and quoted.
	Verify(ctx context.Context, e evidence.Evidence) (evidence.Verified, error)
	// Facts say what the trust is made of.
	Facts() Facts
}

// Facts say what a trust is made of.
type Facts struct {
	// Identities is how many different identities the trust can vouch for at most; 0 where
	// that has no bound, as of certificates with a pattern.
	Identities int
	// Names are the identities by their names, as [evidence.Verified] has them, where they
	// are known: two trusts may name the same.
	Names []string
	// Expires is when the first of what it needs to verify new signatures ends; zero for never.
	Expires time.Time
	// Issued is when the newest of what it is made of begins to be valid; zero where nothing
	// says so. A file with an earlier one is older.
	Issued time.Time
}
