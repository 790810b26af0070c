// Package verify has the verifiers of evidence. A daemon that imports it, for its side effect,
// accepts rules that verify:
//
//	verify/sigstore    keys and keyless, in bundles and in the forms of cosign v1 and v2
//	verify/notation    signatures of the Notary Project
//
// It is a module of its own, so that who needs none of it does not build its dependencies.
// Nothing in it opens a file or asks a network: a trust's files are read by package trust.
package verify

import (
	// Each registers its verifier.
	_ "github.com/transfer-referrers/transfer-referrers/verify/notation"
	_ "github.com/transfer-referrers/transfer-referrers/verify/sigstore"
)
