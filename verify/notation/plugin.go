// Package notation verifies signatures of the Notary Project, JWS and COSE, with notation-go.
//
// A [Loader] makes a verifier of root certificates and the names of those who sign, or of
// notation's own directory. Importing the package registers it as a plugin.
//
// Nothing here opens a file, runs a plugin of notation or asks a network, so that revocation
// is not checked; each [evidence.Verified] says so.
package notation

import (
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

func init() {
	registry.Register(&plugin.Registration{
		Type: trust.VerifierPlugin,
		ID:   "notation",
		InitFn: func(*plugin.InitContext) (any, error) {
			return Loader{}, nil
		},
	})
}
