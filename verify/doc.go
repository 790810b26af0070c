// Package verify has the verifiers of evidence, and what judges containers at their creation. A
// daemon that imports it, for its side effect, accepts rules that verify:
//
//	verify/sigstore    keys and keyless, in bundles and in the forms of cosign v1 and v2
//	verify/notation    signatures of the Notary Project
//	verify/nri         the gate at the creation of CRI's containers
//
// It is a module of its own, so that who needs none of it does not build its dependencies.
// Nothing in it opens a file or asks a network: a trust's files are read by package trust, and
// the gate connects to the daemon itself.
package verify

import (
	// Each registers its plugin.
	_ "github.com/transfer-referrers/transfer-referrers/verify/notation"
	_ "github.com/transfer-referrers/transfer-referrers/verify/nri"
	_ "github.com/transfer-referrers/transfer-referrers/verify/sigstore"
)
