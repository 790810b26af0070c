package integration

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// pushLarge puts an image of layers that are opened ahead, and returns it as one that is ruled.
func pushLarge(t *testing.T, reg *registry.Registry, tag string) ruled {
	t.Helper()
	var layers []unpackable
	for i := range 5 {
		layers = append(layers, newLayer(t, uint64(tag[0])+uint64(i), 4<<10))
	}
	name, blobs := pushUnpackable(t, reg, tag, layers...)
	manifest, ok := get(t, reg, "manifests/"+tag)
	if !ok {
		t.Fatal("the image is not there")
	}
	return ruled{described(ocispec.MediaTypeImageManifest, string(manifest)), reg, name, blobs}
}

// slow is a fault: what has the substring in its path is answered late.
func slow(substring string, by time.Duration) registry.Fault {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, substring) {
			select {
			case <-time.After(by):
			case <-r.Context().Done():
			}
		}
		return false
	}
}

// signatureBlob is the blob that holds the signature that signBundle pushes.
func signatureBlob(t *testing.T, image ruled, key *sigstoretest.Key) string {
	t.Helper()
	content := artifactContent(t, image.reg, signBundle(t, image, key))
	return content[len(content)-2] // its manifest, the config, the layer, the subject
}

// firstOf returns when the first request for one of the blobs began, zero where there is none.
func firstOf(reg *registry.Registry, blobs []digest.Digest) time.Time {
	var first time.Time
	for _, r := range reg.Requests() {
		if slices.ContainsFunc(blobs, func(d digest.Digest) bool { return strings.Contains(r.Path, d.String()) }) && (first.IsZero() || r.Start.Before(first)) {
			first = r.Start
		}
	}
	return first
}

// endOf returns when the answer to the last request for the path was written.
func endOf(t *testing.T, reg *registry.Registry, path string) time.Time {
	t.Helper()
	var end time.Time
	for _, r := range reg.Requests() {
		if strings.Contains(r.Path, path) && r.End.After(end) {
			end = r.End
		}
	}
	if end.IsZero() {
		t.Fatalf("there was no request for %s", path)
	}
	return end
}

// No layer of an image that is refused is asked for, opened ahead or not, however late its
// signature comes; those of one that is verified are once it has come, and not before.
func TestNoLayerIsOpenedAheadOfTheVerdict(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, foreign := pushLarge(t, reg, "signed"), pushLarge(t, reg, "foreign")
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	unpacked := func(image ruled) error {
		_, err := d.Ctr(testContext(t), "images", "pull", image.name)
		return err
	}
	late := signatureBlob(t, foreign, stranger)
	reg.Fail(slow(late, time.Second))
	reg.Reset()
	wantError(t, unpacked(foreign), "ctr: SignatureValidationFailed: ")
	time.Sleep(200 * time.Millisecond) // for what would come behind
	foreign.wantWithheld(t)

	late = signatureBlob(t, signed, key)
	reg.Fail(slow(late, time.Second))
	reg.Reset()
	if err := unpacked(signed); err != nil {
		t.Fatal(err)
	}
	if first, came := firstOf(reg, signed.withheld), endOf(t, reg, late); first.Before(came) {
		t.Errorf("a layer or the config was asked for %s before the signature had come", came.Sub(first))
	}
	for _, dgst := range signed.withheld {
		if n := reg.Count("GET /v2/app/blobs/" + dgst.String()); n != 1 {
			t.Errorf("%d requests for %s", n, dgst)
		}
	}
}

// Evidence that is enough is not waited beyond: a listing's other referrers may be late.
func TestLayersComeAtAnEarlyYes(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushLarge(t, reg, "v1")
	signature := signatureBlob(t, image, key)
	_, other := attach(t, reg, "app", image.Descriptor, "application/vnd.in-toto+json", []byte("an attestation"))
	late := other[2].String()
	reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		return slow(late, 2*time.Second)(w, r) || slow(signature, 500*time.Millisecond)(w, r)
	})
	d := startDaemon(t, active(trustedKeys(t, "ci", key.PEM)+rule(`artifact_types = ["all"]`, `verify = "enforce"`)+signedBy(`by = ["ci"]`)))
	reg.Reset()
	ctr(t, d, "images", "pull", image.name)
	if first, came := firstOf(reg, image.withheld), endOf(t, reg, signature); first.Before(came) {
		t.Error("a layer was asked for before the signature had come")
	} else if end := endOf(t, reg, late); !first.Before(end) {
		t.Errorf("no layer was asked for before %s, which verifies nothing, had come", late)
	}
}

// A rule that warns lets nothing wait, and tells of an image that is not verified.
func TestWarnWaitsForNothing(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, foreign := pushLarge(t, reg, "signed"), pushLarge(t, reg, "foreign")
	d := startDaemon(t, active(trustedKeys(t, "ci", key.PEM)+rule(`verify = "warn"`)+signedBy(`by = ["ci"]`)))
	const said = "referrers: the image is not verified, and verify = "
	for _, tc := range []struct {
		image ruled
		by    *sigstoretest.Key
		lines int
		code  int
	}{{signed, key, 0, 0}, {foreign, stranger, 1, exitRefused}} {
		late := signatureBlob(t, tc.image, tc.by)
		reg.Fail(slow(late, time.Second))
		reg.Reset()
		ctr(t, d, "images", "pull", tc.image.name)
		if first, came := firstOf(reg, tc.image.withheld), endOf(t, reg, late); !first.Before(came) {
			t.Errorf("%s: no layer was asked for before the signature had come", tc.image.name)
		}
		lines := d.LogLines(said)
		if len(lines) != tc.lines {
			t.Errorf("%s: the log says %q", tc.image.name, lines)
		}
		for _, line := range lines {
			if !strings.Contains(line, "level=warning") || !strings.Contains(line, foreign.name+" is refused: ") {
				t.Errorf("the log says %s", line)
			}
		}
		reg.Fail(nil)
		referrers(t, d, "verify", tc.image.name).want(t, tc.code)
	}
	referrers(t, d, "verify", foreign.name).prints(t, "refused, and the rule lets it pass with a warning")
}

// An image that a rule denies is refused before its manifests' children are asked for, and
// before its referrers are; what is stored of one counts as refused.
func TestDeniedIsRefusedFirst(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	signBundle(t, image, key)
	deny := active(rule("deny = true"))
	d := startDaemon(t, deny)
	image.refused(t, d, "deny = true")
	if n := reg.Count("/referrers/"); n > 0 {
		t.Errorf("%d requests for referrers of an image that is denied", n)
	}
	restart(t, d, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	pull(t, d, image.name)
	restart(t, d, deny)
	image.withholds(t, d, "deny = true")
	referrers(t, d, "verify", image.name).want(t, exitRefused, "deny = true")
}

// An earlier rule that says otherwise governs alone: deny refuses what no other rule is for.
func TestDenyOfAllElse(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg, other := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	image, elsewhere := pushRuled(t, reg, "v1"), pushRuled(t, other, "v1")
	signBundle(t, image, key)
	signBundle(t, elsewhere, key)
	d := startDaemon(t, daemonFor(reg, trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	elsewhere.refused(t, d, "rule 2, ", "deny = true")
	image.verified(t, d)
}

// daemonFor enforces the entries for a registry's images, and denies all others.
func daemonFor(reg *registry.Registry, trusts string, entries ...string) daemon.Config {
	return active(trusts + strings.ReplaceAll(rule(`verify = "enforce"`), `"**"`, `"`+reg.Host+`/**"`) + strings.Join(entries, "") + rule("deny = true"))
}
