package integration

import (
	"slices"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// wantUsable fails where the kubelet does not find the image, or where content
// or the unpacked layers are not whole.
func wantUsable(t *testing.T, d *daemon.Daemon, image, ref string) {
	t.Helper()
	status, err := criImages(t, d).ImageStatus(testContext(t), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}})
	if err != nil {
		t.Fatal(err)
	}
	if status.Image == nil || status.Image.Id != ref {
		t.Errorf("CRI knows %s as %v, want %s", image, status.Image, ref)
	}
	out, err := d.Ctr(testContext(t), "--namespace", "k8s.io", "images", "check", "name=="+image)
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(out, image)
	if fields := strings.Fields(line); !slices.Contains(fields, "complete") || !slices.Contains(fields, "true") {
		t.Errorf("the image is not complete and unpacked: %s", out)
	}
}

// A node changes from stock containerd to the plugin and back with its images:
// those pulled before are used after, a second pull brings the referrers, and
// stock containerd keeps them until the image goes.
func TestSwitchOnAndOff(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	config := map[string]string{"config.toml": "version = 4\n" + node4}
	without := daemon.Config{Binary: stockBinary(t), Node: config}
	with := daemon.Config{Binary: pluginBinary(t), Node: map[string]string{dropInFile: readDoc(t, dropInFile)}}
	with.Node["config.toml"] = config["config.toml"]

	d := startDaemon(t, without)
	ref := criPull(t, d, image)
	wantUsable(t, d, image, ref)

	restart(t, d, with)
	wantUsable(t, d, image, ref)
	wantNames(t, f, criStored(t, d, image))
	if again := criPull(t, d, image); again != ref {
		t.Errorf("the second pull is of %s, not %s", again, ref)
	}
	want := []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation}
	wantNames(t, f, criStored(t, d, image), want...)

	without.Node = map[string]string{"config.toml": config["config.toml"], dropInFile: "version = 4\n"}
	restart(t, d, without)
	wantUsable(t, d, image, ref)
	collectIn(t, d, "k8s.io")
	wantNames(t, f, criStored(t, d, image), want...)
	if again := criPull(t, d, image); again != ref {
		t.Errorf("stock containerd pulls %s, not %s", again, ref)
	}
	wantUsable(t, d, image, ref)
	if _, err := criImages(t, d).RemoveImage(testContext(t), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: image}}); err != nil {
		t.Fatal(err)
	}
	collectIn(t, d, "k8s.io")
	out, err := d.Ctr(testContext(t), "--namespace", "k8s.io", "content", "ls", "--quiet")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(out) != "" {
		t.Errorf("content outlives its image under stock containerd:\n%s", out)
	}
}

// Stock containerd does not start with the drop-in, and says why.
func TestStockWithTheDropIn(t *testing.T) {
	_, err := daemon.Start(testContext(t), daemon.Config{Binary: stockBinary(t), Node: map[string]string{
		"config.toml": "version = 4\n" + node4, dropInFile: readDoc(t, dropInFile),
	}})
	wantError(t, err, "required plugin [io.containerd.transfer.v1.referrers] not included")
}

// A pull secret opens the referrers as it opens the image, whatever the registry
// asks for, and a wrong one opens nothing.
func TestPullSecrets(t *testing.T) {
	f := loadFixture(t)
	for name, option := range map[string]registry.Option{
		"basic": registry.WithBasic("robot", "pull-secret"),
		"token": registry.WithToken("robot", "pull-secret"),
	} {
		t.Run(name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg, option)
			wholeFixture(f, t, reg)
			image := reg.Host + "/app:v1"
			d := startDaemon(t, active(everything))
			images := criImages(t, d)
			for _, auth := range []*cri.AuthConfig{nil, {Username: "robot", Password: "wrong"}, {Auth: "cm9ib3Q6d3Jvbmc="}} {
				if _, err := images.PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}, Auth: auth}); err == nil {
					t.Errorf("the pull succeeded with %v", auth)
				}
			}
			// "robot:pull-secret", as a dockerconfigjson has it.
			_, err := images.PullImage(testContext(t), &cri.PullImageRequest{
				Image: &cri.ImageSpec{Image: image},
				Auth:  &cri.AuthConfig{Auth: "cm9ib3Q6cHVsbC1zZWNyZXQ=", ServerAddress: "http://" + reg.Host},
			})
			if err != nil {
				t.Fatal(err)
			}
			wantNames(t, f, criStored(t, d, image), fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation,
				fixture.SBOM, fixture.SBOM+"/"+fixture.SBOMSignature, fixture.VEX)
		})
	}
}
