package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// multiPlatform is an image of two platforms that can be signed in part.
type multiPlatform struct {
	ruled
	amd64, arm64 ocispec.Descriptor
}

func pushMultiPlatform(t *testing.T, reg *registry.Registry, tag string) multiPlatform {
	t.Helper()
	first, second := pushSmall(t, reg, "app", "", tag+" amd64"), pushSmall(t, reg, "app", "", tag+" arm64")
	second.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	index := put(t, reg, tag, ocispec.MediaTypeImageIndex, imageIndex(nil, first.Descriptor, second.Descriptor))
	return multiPlatform{ruled{index, reg, reg.Host + "/app:" + tag, append(first.content[1:], second.content[1:]...)}, first.Descriptor, second.Descriptor}
}

// clients pull in each way that containerd is asked to.
func clients(t *testing.T, d *daemon.Daemon) map[string]func(image string) error {
	t.Helper()
	kubelet := criImages(t, d)
	return map[string]func(string) error{
		"ctr": func(image string) error {
			_, err := d.Ctr(testContext(t), "images", "pull", image)
			return err
		},
		"Go": func(image string) error { return clientPull(t, d, image, nil) },
		"CRI": func(image string) error {
			_, err := kubelet.PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}})
			return err
		},
	}
}

// Each client pulls what is signed and attested, and is refused everything that is less, from
// registries with the referrers API and without.
func TestEachClientAndRegistry(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	provenance := func(builder string) map[string]any {
		return map[string]any{"runDetails": map[string]any{"builder": map[string]any{"id": builder}}}
	}
	const trusted, other = "https://builder.example.com/v1", "https://builder.example.org/v1"
	sign := func(k *sigstoretest.Key, m multiPlatform, subject ocispec.Descriptor) {
		referBundle(t, m.reg, subject, sigstoretest.SignPredicateType, k.Signature(t, subject.Digest))
	}
	attest := func(k *sigstoretest.Key, m multiPlatform, builder string) {
		referBundle(t, m.reg, m.Descriptor, slsa1, k.Attestation(t, "", m.Digest, slsa1, provenance(builder)))
	}
	images := map[string]func(m multiPlatform){
		"unsigned":   func(multiPlatform) {},
		"foreign":    func(m multiPlatform) { sign(stranger, m, m.Descriptor); attest(key, m, trusted) },
		"unattested": func(m multiPlatform) { sign(key, m, m.Descriptor) },
		"misbuilt":   func(m multiPlatform) { sign(key, m, m.Descriptor); attest(key, m, other) },
		"claimed":    func(m multiPlatform) { sign(key, m, m.Descriptor); attest(stranger, m, trusted) },
		"half":       func(m multiPlatform) { sign(key, m, m.arm64); attest(key, m, trusted) },
		"signed":     func(m multiPlatform) { sign(key, m, m.Descriptor); attest(key, m, trusted) },
		"per":        func(m multiPlatform) { sign(key, m, m.amd64); sign(key, m, m.arm64); attest(key, m, trusted) },
	}
	for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
		t.Run(string(kind), func(t *testing.T) {
			reg := startRegistry(t, kind)
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`),
				attestedBy(`predicate_type = "`+slsa1+`"`, `by = ["ci"]`, fmt.Sprintf(`where = [{ path = "/runDetails/builder/id", equals = %q }]`, trusted))))
			pulls := clients(t, d)
			for tag, refer := range images {
				m := pushMultiPlatform(t, reg, tag)
				refer(m)
				for client, pull := range pulls {
					reg.Reset()
					err := pull(m.name)
					if tag == "signed" || tag == "per" {
						if err != nil {
							t.Errorf("%s is refused %s: %v", client, tag, err)
						}
						continue
					}
					if err == nil || !strings.Contains(err.Error(), "SignatureValidationFailed: image "+m.name+" is refused: ") {
						t.Errorf("%s is told of %s %v", client, tag, err)
					}
					m.wantWithheld(t)
				}
			}
			wantCutOff(t, reg, pulls)
		})
	}
}

// wantCutOff has the registry tell nothing of referrers any more: what is stored verifies what
// was verified, and what was refused stays so.
func wantCutOff(t *testing.T, reg *registry.Registry, pulls map[string]func(string) error) {
	t.Helper()
	reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		cut := strings.Contains(r.URL.Path, "/referrers/") || strings.Contains(r.URL.Path, "/manifests/sha256-")
		if cut {
			w.WriteHeader(http.StatusForbidden) // which nobody retries
		}
		return cut
	})
	for client, pull := range pulls {
		for tag, refused := range map[string]bool{"signed": false, "per": false, "half": true, "unsigned": true} {
			err := pull(reg.Host + "/app:" + tag)
			if !refused && err != nil || refused && (err == nil || !strings.Contains(err.Error(), "SignatureValidationFailed: ")) {
				t.Errorf("cut off, %s is told of %s %v", client, tag, err)
			}
		}
	}
}
