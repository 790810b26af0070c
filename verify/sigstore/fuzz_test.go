package sigstore

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// The fuzz targets hold, of whatever bytes: nothing panics, and what verifies says what one of
// the seeds says that were signed by who is trusted.

// said is what evidence may prove.
type said struct {
	Kind                               evidence.Kind
	Identity, PredicateType, Predicate string
	Names                              string
}

func sayOf(v evidence.Verified) said {
	return said{v.Kind, v.Identity, v.PredicateType, string(v.Predicate), strings.Join(v.Names, "\n")}
}

// fuzzed is what a target trusts. Go fuzzes in other processes than that which makes the seeds:
// they find it in a file, since keys of their own would verify no seed.
type fuzzed struct {
	Key, Root []byte
	Said      []said

	verifiers []trust.Verifier
	seeds     []evidence.Evidence
}

const materialVariable = "SIGSTORE_FUZZ_MATERIAL"

func newFuzzed(tb testing.TB, format evidence.Format) *fuzzed {
	tb.Helper()
	z := &fuzzed{}
	if path := os.Getenv(materialVariable); path != "" {
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, z)
		}
		if err != nil {
			tb.Fatal(err)
		}
		z.verifiers = []trust.Verifier{trustKeys(tb, z.Key), trustCI(tb, z.Root)}
		return z
	}
	z.sign(tb, format)
	data, err := json.Marshal(z)
	path := filepath.Join(tb.TempDir(), "material.json")
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Setenv(materialVariable, path)
	return z
}

// sign signs in each form, by who is trusted and by who is not.
func (z *fuzzed) sign(tb testing.TB, format evidence.Format) {
	tb.Helper()
	s, k := sigstoretest.New(tb), sigstoretest.NewKey(tb)
	z.Key, z.Root = k.PEM, s.Root
	z.verifiers = []trust.Verifier{trustKeys(tb, k.PEM), trustCI(tb, s.Root)}
	for i, forms := range [][]form{keyForms(tb, k, manifest), identityForms(tb, s, manifest, ci, tokens)} {
		for _, f := range forms {
			if f.e.Format == format {
				z.Said = append(z.Said, sayOf(accept(tb, z.verifiers[i], f.e)))
				z.seeds = append(z.seeds, f.e)
			}
		}
	}
	for _, f := range slices.Concat(
		keyForms(tb, k, []byte("sibling")), keyForms(tb, sigstoretest.NewKey(tb), manifest),
		identityForms(tb, s, manifest, "mallory@example.com", tokens), identityForms(tb, sigstoretest.New(tb), manifest, ci, tokens),
	) {
		if f.e.Format == format {
			z.seeds = append(z.seeds, f.e)
		}
	}
}

func (z *fuzzed) hold(t *testing.T, e evidence.Evidence) {
	t.Helper()
	for _, v := range z.verifiers {
		switch got, err := v.Verify(t.Context(), e); {
		case err == nil && !slices.Contains(z.Said, sayOf(got)):
			t.Errorf("nobody signed that: %+v", got)
		case err != nil && len(err.Error()) > 900:
			t.Errorf("an error of %d bytes: %v", len(err.Error()), err)
		}
	}
}

func FuzzBundle(f *testing.F) {
	z := newFuzzed(f, evidence.Bundle)
	for _, e := range z.seeds {
		f.Add(e.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { z.hold(t, bundleOf(data)) })
}

// layers are fuzzed with the annotations that are read, of other layers too.
func fuzzLayers(f *testing.F, format evidence.Format) {
	z := newFuzzed(f, format)
	of := func(e evidence.Evidence) (signature, certificate, entry, timestamp string) {
		return e.Annotations[signatureAnnotation], e.Annotations[certificateAnnotation], e.Annotations[bundleAnnotation], e.Annotations[timestampAnnotation]
	}
	for _, e := range z.seeds {
		for _, other := range z.seeds {
			signature, certificate, entry, timestamp := of(e)
			_, _, otherEntry, otherTimestamp := of(other)
			f.Add(e.Data, signature, certificate, entry, timestamp)
			f.Add(e.Data, signature, certificate, otherEntry, otherTimestamp)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, signature, certificate, entry, timestamp string) {
		annotations := map[string]string{
			signatureAnnotation: signature, certificateAnnotation: certificate, bundleAnnotation: entry, timestampAnnotation: timestamp,
		}
		maps.DeleteFunc(annotations, func(_, value string) bool { return value == "" })
		e := layerOf(sigstoretest.Layer{Data: data, Annotations: annotations})
		e.Format = format
		z.hold(t, e)
	})
}

func FuzzCosignSignature(f *testing.F) { fuzzLayers(f, evidence.CosignSignature) }

func FuzzDSSE(f *testing.F) { fuzzLayers(f, evidence.DSSE) }
