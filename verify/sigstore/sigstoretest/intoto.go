package sigstoretest

import (
	"testing"
	"time"

	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	"github.com/sigstore/rekor/pkg/types/intoto"
	_ "github.com/sigstore/rekor/pkg/types/intoto/v0.0.1" // registers itself
	_ "github.com/sigstore/rekor/pkg/types/intoto/v0.0.2" // registers itself
)

// IntotoBody is what a log of Rekor v1 keeps of an envelope as an entry of the kind intoto.
func IntotoBody(tb testing.TB, version string, envelope, certificate []byte) []byte {
	tb.Helper()
	proposed := must[models.ProposedEntry](tb)(types.NewProposedEntry(tb.Context(), intoto.KIND, version, types.ArtifactProperties{
		ArtifactBytes: envelope, PublicKeyBytes: [][]byte{certificate},
	}))
	entry := must[types.EntryImpl](tb)(types.CreateVersionedEntry(proposed))
	return must[[]byte](tb)(types.CanonicalizeEntry(tb.Context(), entry))
}

// LogAnnotation is the annotation of a layer whose entry in the log has the body.
func (s *Sigstore) LogAnnotation(tb testing.TB, body []byte) string {
	tb.Helper()
	return logAnnotation(tb, s.Log(tb, body, 7, time.Now().Add(time.Minute).Unix()))
}
