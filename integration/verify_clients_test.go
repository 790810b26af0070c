package integration

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// A Go client gets the refusal as its error, from the first byte on.
func TestClientPullIsVerified(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, unsigned := pushRuled(t, reg, "signed"), pushRuled(t, reg, "unsigned")
	signBundle(t, signed, key)
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	reg.Reset()
	err := clientPull(t, d, unsigned.name, nil)
	wantError(t, err)
	if want := "SignatureValidationFailed: image " + unsigned.name + " is refused: "; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the error does not begin with %q: %v", want, err)
	}
	unsigned.wantWithheld(t)
	if err := clientPull(t, d, signed.name, nil); err != nil {
		t.Error(err)
	}
	referrers(t, d, "verify", signed.name).want(t, 0)
}

// What a client selects lifts nothing that the rule verifies: neither other types, nor fewer
// levels, nor a denial of the evidence.
func TestClientSelectionLiftsNoVerification(t *testing.T) {
	key := sigstoretest.NewKey(t)
	entries := signedBy(`by = ["ci"]`) + attestedBy(`predicate_type = "`+slsa1+`"`, `by = ["ci"]`)
	for _, types := range [][]string{nil, {"sboms"}, {"application/vnd.example.none"}, {"!signatures", "all"}, {"!attestations", "!signatures"}} {
		t.Run(strings.Join(types, " "), func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			itself := pushBuiltBy(t, reg, "v1", "https://builder.example.com/v1", manifestItself)
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), entries))
			selection := &api.Selection{ArtifactTypes: types, Depth: 1}
			reg.Reset()
			wantError(t, clientPull(t, d, itself.name, selection))
			itself.wantWithheld(t)
			signBundle(t, itself.ruled, key)
			// Two levels down from the image.
			referBundle(t, reg, itself.attestation, sigstoretest.SignPredicateType, key.Signature(t, itself.attestation.Digest))
			if err := clientPull(t, d, itself.name, selection); err != nil {
				t.Fatal(err)
			}
			referrers(t, d, "verify", itself.name).want(t, 0)
		})
	}
}

// The kubelet's pull of a signed image succeeds, and of one that is not fails with the text
// for it, under a code that it shows.
func TestCRIPullIsVerified(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg, registry.WithToken("robot", "pull-secret"))
	signed, unsigned := pushRuled(t, reg, "signed"), pushRuled(t, reg, "unsigned")
	signBundle(t, signed, key)
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	images := criImages(t, d)
	pull := func(image ruled) error {
		_, err := images.PullImage(testContext(t), &cri.PullImageRequest{
			Image: &cri.ImageSpec{Image: image.name},
			Auth:  &cri.AuthConfig{Username: "robot", Password: "pull-secret"},
		})
		return err
	}
	reg.Reset()
	err := pull(unsigned)
	wantError(t, err, "SignatureValidationFailed: image "+unsigned.name+" is refused: ", "needs a signature by ci")
	if code := grpcstatus.Code(err); code != codes.Unknown {
		t.Errorf("the code is %s, and the kubelet shows the text of none but Unknown", code)
	}
	unsigned.wantWithheld(t)
	got, err := images.ImageStatus(testContext(t), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: unsigned.name}})
	if err != nil || got.Image != nil {
		t.Errorf("CRI knows an image whose pull was refused: %v, %v", got, err)
	}
	if err := pull(signed); err != nil {
		t.Fatal(err)
	}
	reg.Fail(unreachable)
	runCtr(t, d, "--namespace", "k8s.io", "referrers", "verify", signed.name).want(t, 0).prints(t, "signed by "+keyIdentity(t, key.PEM))
}
