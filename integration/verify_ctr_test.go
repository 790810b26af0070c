package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// `ctr referrers verify` says by its exit code what scripts ask for: verified, refused, under
// no rule that verifies, or no answer.
func TestVerifyExitCodes(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg, unruled := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	signed, foreign, free := pushRuled(t, reg, "signed"), pushRuled(t, reg, "foreign"), pushRuled(t, unruled, "v1")
	signature := signBundle(t, signed, key)
	signBundle(t, foreign, stranger)
	config := active(trustedKeys(t, "ci", key.PEM) + strings.ReplaceAll(rule(`verify = "warn"`), `"**"`, `"`+reg.Host+`/**"`) + signedBy(`by = ["ci"]`))
	d := startDaemon(t, config)
	for _, image := range []ruled{signed, foreign, free} {
		pull(t, d, image.name)
	}
	for _, tc := range []struct {
		image  ruled
		code   int
		result verdict.Result
	}{{signed, 0, verdict.Verified}, {foreign, exitRefused, verdict.Refused}, {free, exitNone, verdict.Unverified}} {
		v := judged(t, d, tc.image.name, tc.code)
		if v.Image != tc.image.name || v.Digest != tc.image.Digest || v.Result != tc.result || (v.Reason == "") != (tc.code != exitRefused) {
			t.Errorf("verify says of %s %+v", tc.image.name, v.Verdict)
		}
	}
	v := judged(t, d, signed.name, 0)
	if v.Mode != policy.VerifyWarn || len(v.Manifests) != 1 || !v.Manifests[0].Verified || len(v.Evidence) != 1 {
		t.Fatalf("verify says %+v", v.Verdict)
	}
	if e := v.Evidence[0]; e.Referrer != signature.Digest || !e.Counted || fmt.Sprint(e.Identities) != "["+keyIdentity(t, key.PEM)+"]" {
		t.Errorf("of its evidence it says %+v", e)
	}
	referrers(t, d, "verify", foreign.name).want(t, exitRefused, "ctr: SignatureValidationFailed: image "+foreign.name+" is refused: ").prints(t,
		"rule 1, ", "lacks a signature by ci", "ignored sigstore-bundle ")
	referrers(t, d, "verify", free.name).want(t, exitNone, "no rule verifies image "+free.name)
	referrers(t, d, "verify", reg.Host+"/app:nowhere").want(t, exitError)
	referrers(t, d, "verify").want(t, exitUsage)
	referrers(t, d, "verify", "--format", "xml", signed.name).want(t, exitUsage)
}

// explain says what a pull would decide, with every piece of evidence, and stores nothing.
func TestExplainOfTheVerdict(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, foreign := pushRuled(t, reg, "signed"), pushRuled(t, reg, "foreign")
	for _, image := range []ruled{signed, foreign} {
		for range 3 {
			signBundle(t, image, stranger)
		}
	}
	tagLayers(t, reg, signed.Digest, ".sig", key.CosignSignature(t, reg.Host+"/app", signed.Digest))
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	for _, tc := range []struct {
		image   ruled
		result  verdict.Result
		counted int
		ends    string
	}{
		{signed, verdict.Verified, 1, "\na pull would succeed"},
		{foreign, verdict.Refused, 0, "\na pull would fail: SignatureValidationFailed: image " + foreign.name + " is refused: "},
	} {
		e := explained(t, d, tc.image.name)
		if e.Verdict == nil || e.Verdict.Result != tc.result || len(e.Verdict.Evidence) != 3+tc.counted {
			t.Fatalf("the verdict on %s is %+v", tc.image.name, e.Verdict)
		}
		if refused := strings.HasPrefix(e.Refused, "SignatureValidationFailed: image "+tc.image.name+" is refused: "); refused != (tc.result == verdict.Refused) {
			t.Errorf("refused is %q", e.Refused)
		}
		counted := 0
		for _, piece := range e.Verdict.Evidence {
			if piece.Counted {
				counted++
			}
			if len(piece.Reasons) == 0 {
				t.Errorf("there is no reason in %+v", piece)
			}
		}
		if counted != tc.counted {
			t.Errorf("%d pieces count, want %d", counted, tc.counted)
		}
		out := referrers(t, d, "explain", "--plain-http", tc.image.name).want(t, 0).prints(t, tc.ends)
		if n := strings.Count(out.stdout, "\nignored sigstore-bundle "); n != 3 {
			t.Errorf("%d of 3 pieces are printed:\n%s", n, out.stdout)
		}
	}
	if left := contents(t, d); len(left) > 0 {
		t.Errorf("explain stores %v", left)
	}
	foreign.refused(t, d)
	signed.verified(t, d)
}

// What explain says of a registry that fails is what a pull does.
func TestExplainOfUnknownReferrers(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	signBundle(t, image, key)
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	reg.Fail(registry.ReferrersFail(http.StatusBadGateway))
	if e := explained(t, d, image.name); !strings.Contains(e.Refused, "is not known (") {
		t.Errorf("refused is %q", e.Refused)
	}
	image.refused(t, d, "is not known (")
	reg.Fail(nil)
	pull(t, d, image.name)
	reg.Fail(registry.ReferrersFail(http.StatusBadGateway))
	if e := explained(t, d, image.name); e.Refused != "" {
		t.Errorf("with the signature stored refused is %q", e.Refused)
	}
	pull(t, d, image.name)
}

// A client that shows progress shows who signed, beneath the manifest that is verified.
func TestProgressShowsSigners(t *testing.T) {
	first, second, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, foreign := pushRuled(t, reg, "signed"), pushRuled(t, reg, "foreign")
	signBundle(t, signed, first)
	signBundle(t, signed, second)
	signBundle(t, foreign, stranger)
	d := startDaemon(t, active(trustedKeys(t, "ci", first.PEM, second.PEM)+rule(`verify = "warn"`)+signedBy(`by = ["ci"]`)))
	shown := func(image ruled) map[string][]string {
		var mu sync.Mutex
		events := map[string][]string{}
		if err := clientPull(t, d, image.name, nil, transfer.WithProgress(func(p transfer.Progress) {
			mu.Lock()
			defer mu.Unlock()
			events[p.Event] = p.Parents
		})); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return events
	}
	beneath := func(image ruled) string {
		parent := remotes.MakeRefKey(t.Context(), ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest})
		return fmt.Sprint([]string{parent})
	}
	events := shown(signed)
	for _, key := range []*sigstoretest.Key{first, second} {
		if got := fmt.Sprint(events["verified: "+keyIdentity(t, key.PEM)]); got != beneath(signed) {
			t.Errorf("%s is shown beneath %s", keyIdentity(t, key.PEM), got)
		}
	}
	events = shown(foreign)
	if got := fmt.Sprint(events["not verified: see ctr referrers explain"]); got != beneath(foreign) {
		data, _ := json.Marshal(events)
		t.Errorf("that it is not verified is shown beneath %s, of %s", got, data)
	}
}
