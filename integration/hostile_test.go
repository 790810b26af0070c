package integration

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// Referrers that hang hold up neither their own image's layers nor other pulls.
func TestReferrersThatHang(t *testing.T) {
	f := loadFixture(t)
	hanging, other := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	wholeFixture(f, t, hanging)
	wholeFixture(f, t, other)
	referrers := map[string]bool{}
	for _, n := range []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.VEX} {
		referrers[f.Content(n)[2].String()] = true
	}
	done, hangs := make(chan struct{}), make(chan struct{}, 1)
	t.Cleanup(func() { close(done) }) // before the registry waits for its requests
	hanging.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		if !referrers[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]] {
			return false
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case hangs <- struct{}{}:
		default: // another does already
		}
		select {
		case <-done:
		case <-r.Context().Done():
		}
		return true
	})
	d := startDaemon(t, active(`timeout = "3s"`+everything))
	image := hanging.Host + "/app:v1"
	pulled := make(chan error, 1)
	go func() {
		_, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", image)
		pulled <- err
	}()
	select {
	case <-hangs:
	case <-testContext(t).Done():
		t.Fatal("no referrer was asked for")
	}
	began := time.Now()
	pull(t, d, other.Host+"/app:v1")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("another pull took %s", took)
	}
	select {
	case err := <-pulled:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(25 * time.Second):
		t.Fatal("the pull hangs with its referrers")
	}
	if read := ls(t, d, image); read.Status != labels.Unknown {
		t.Errorf("status is %q, want unknown", read.Status)
	}
	wantClean(t, d)
}

// A pull that a rule refuses leaves an image that is there already as it was.
func TestRefusedPullLeavesTheStoredImageAlone(t *testing.T) {
	f := loadFixture(t)
	unsigned, signed := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	imageAlone(f, t, unsigned)
	wholeFixture(f, t, signed)
	d := startDaemon(t, active(strings.ReplaceAll(rule(`artifact_types = ["all"]`), "**", unsigned.Host+"/**")+
		strings.ReplaceAll(rule(`artifact_types = ["all"]`, `required = ["application/vnd.example.approval"]`), "**", signed.Host+"/**")))
	pull(t, d, unsigned.Host+"/app:v1")
	before := ls(t, d, unsigned.Host+"/app:v1")
	if _, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", signed.Host+"/app:v1"); err == nil {
		t.Fatal("the pull succeeded")
	}
	after := ls(t, d, unsigned.Host+"/app:v1")
	if after.Status != labels.Absent || !after.Checked.Equal(before.Checked) || len(after.Referrers) != 0 {
		t.Errorf("the image had %+v, now %+v", before, after)
	}
}

// A registry says of what type an image's root is. One that calls an unsigned manifest
// something else gets it neither past a rule nor in the place of a signed image.
func TestRootOfAnotherTypeIsRefused(t *testing.T) {
	f := loadFixture(t)
	unsigned := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`)
	dgst := digest.FromBytes(unsigned)
	for _, mediaType := range []string{"application/octet-stream", "APPLICATION/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.layer.v1.tar"} {
		for _, key := range []string{`required = ["signatures"]`, `on_error = "fail"`} {
			t.Run(mediaType+" "+key, func(t *testing.T) {
				reg := startRegistry(t, registry.Olareg)
				wholeFixture(f, t, reg)
				d := startDaemon(t, active(rule(`artifact_types = ["signatures"]`, key)))
				image := reg.Host + "/app:v1"
				pull(t, d, image)
				signed, err := d.Client.ImageService().Get(testContext(t), image)
				if err != nil {
					t.Fatal(err)
				}
				reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
					switch r.URL.Path {
					case "/v2/app/manifests/v1", "/v2/app/manifests/" + dgst.String(), "/v2/app/blobs/" + dgst.String():
						w.Header().Set("Content-Type", mediaType)
						w.Header().Set("Docker-Content-Digest", dgst.String())
						w.Header().Set("Content-Length", strconv.Itoa(len(unsigned)))
						if r.Method == http.MethodGet {
							_, _ = w.Write(unsigned)
						}
						return true
					}
					return false
				})
				if _, err := d.Ctr(testContext(t), "images", "pull", "--plain-http", image); err == nil || !strings.Contains(err.Error(), "is neither a manifest's nor an index's") {
					t.Errorf("the pull ends with %v", err)
				}
				if now, err := d.Client.ImageService().Get(testContext(t), image); err != nil || now.Target.Digest != signed.Target.Digest {
					t.Errorf("the image is now %v, %v", now.Target, err)
				}
			})
		}
	}
}

// A pull secret that cannot be read fails the kubelet's pull at once.
func TestCRICredentialsThatCannotBeRead(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithToken("robot", "pull-secret"))
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	began := time.Now()
	_, err := criImages(t, d).PullImage(testContext(t), &cri.PullImageRequest{
		Image: &cri.ImageSpec{Image: reg.Host + "/app:v1"},
		Auth:  &cri.AuthConfig{Auth: "not base64!"},
	})
	wantError(t, err, "credentials")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}
