package integration

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// criImages is the kubelet's client, over the daemon's socket.
func criImages(t *testing.T, d *daemon.Daemon) cri.ImageServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return cri.NewImageServiceClient(conn)
}

// criStored is what is stored with an image that CRI pulled.
func criStored(t *testing.T, d *daemon.Daemon, image string) *stored.Image {
	t.Helper()
	out, err := d.Ctr(testContext(t), "--namespace", "k8s.io", "referrers", "ls", "--format", "json", image)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

// The kubelet's pull, over the CRI socket, with a pull secret: it hands an
// OCIRegistry over in-process, credentials and all.
func TestCRIPull(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithToken("robot", "pull-secret"))
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	images := criImages(t, d)
	image := reg.Host + "/app:v1"
	spec := &cri.ImageSpec{Image: image}

	if _, err := images.PullImage(testContext(t), &cri.PullImageRequest{Image: spec}); err == nil {
		t.Error("the pull succeeded without its secret")
	}
	reg.Reset()
	_, err := images.PullImage(testContext(t), &cri.PullImageRequest{
		Image: spec,
		Auth:  &cri.AuthConfig{Username: "robot", Password: "pull-secret"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := reg.Count("/token"); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
	wantNames(t, f, criStored(t, d, image), fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation,
		fixture.SBOM, fixture.SBOM+"/"+fixture.SBOMSignature, fixture.VEX)
}

// What a rule requires holds for the kubelet as well.
func TestCRIPullRefused(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	imageAlone(f, t, reg)
	d := startDaemon(t, active(rule(`required = ["signatures"]`)))
	images := criImages(t, d)
	spec := &cri.ImageSpec{Image: reg.Host + "/app:v1"}
	_, err := images.PullImage(testContext(t), &cri.PullImageRequest{Image: spec})
	wantError(t, err, "lacks referrers", "signatures", "absent")
	status, err := images.ImageStatus(testContext(t), &cri.ImageStatusRequest{Image: spec})
	if err != nil {
		t.Fatal(err)
	}
	if status.Image != nil {
		t.Errorf("CRI knows an image whose pull was refused: %v", status.Image)
	}
}
