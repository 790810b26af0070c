package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// allVerified is what `ctr referrers verify --all --format json` prints.
type allVerified struct {
	Namespace string
	Images    []struct {
		Image, Digest, Result, Mode, Rule, Reason, Error string
		Containers                                       []string
	}
	ContainersWithoutImage []struct{ Container, Image string }
}

func verifyAll(t *testing.T, d *daemon.Daemon, code int, says ...string) allVerified {
	t.Helper()
	r := referrers(t, d, "verify", "--all", "--format", "json").want(t, code, says...)
	var all allVerified
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	return all
}

// results are "name result", without the registry.
func (a allVerified) results(hosts ...string) string {
	var all []string
	for _, v := range a.Images {
		result := v.Result
		if v.Error != "" {
			result = "error"
		}
		all = append(all, fmt.Sprint(v.Image, " ", result, v.Mode, len(v.Containers)))
	}
	text := strings.Join(all, ", ")
	for _, host := range hosts {
		text = strings.ReplaceAll(text, host+"/", "")
	}
	return text
}

// useImage makes the record of a container that was made from the image.
func useImage(t *testing.T, d *daemon.Daemon, id, image string) {
	t.Helper()
	_, err := d.Client.ContainerService().Create(testContext(t), containers.Container{ID: id, Image: image, Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"}})
	if err != nil {
		t.Fatal(err)
	}
}

// Every image of the namespace is judged by the rules and trusts of now: what was signed by a
// key that is trusted no more, what no rule verifies, and what cannot be judged.
func TestVerifyAll(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg, unruled := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	second, signed, free := pushRuled(t, reg, "second"), pushRuled(t, reg, "signed"), pushRuled(t, unruled, "free")
	signBundle(t, signed, key)
	signBundle(t, second, key)
	file := newKeyFile(t, key.PEM)
	d := startDaemon(t, active(file.trust()+
		strings.ReplaceAll(rule(`verify = "enforce"`), `"**"`, `"`+reg.Host+`/**"`)+signedBy(`by = ["ci"]`)))
	if all := verifyAll(t, d, 0); all.Namespace != "default" || all.Images == nil || len(all.Images) != 0 {
		t.Errorf("of no images: %+v", all)
	}
	pull(t, d, free.name)
	verifyAll(t, d, exitNone, "no rule verifies any of the 1 images of namespace default")
	pull(t, d, signed.name)
	pull(t, d, second.name)
	useImage(t, d, "one", signed.name)
	useImage(t, d, "two", signed.name)
	useImage(t, d, "stray", "example.com/gone:v1")
	// CRI names each image by the digest of its config as well.
	if _, err := d.Client.ImageService().Create(testContext(t), images.Image{Name: signed.withheld[0].String(), Target: signed.Descriptor}); err != nil {
		t.Fatal(err)
	}
	useImage(t, d, "kubelet", signed.withheld[0].String())
	for _, r := range []*registry.Registry{reg, unruled} {
		r.Fail(unreachable)
		r.Reset()
	}
	all := verifyAll(t, d, 0)
	want := "app:second verifiedenforce0, app:signed verifiedenforce3, app:free unverified0"
	if unruled.Host < reg.Host {
		want = "app:free unverified0, app:second verifiedenforce0, app:signed verifiedenforce3"
	}
	if got := all.results(reg.Host, unruled.Host); got != want {
		t.Errorf("verify --all says %s, want %s", got, want)
	}
	if s := all.ContainersWithoutImage; len(s) != 1 || s[0].Container != "stray" || s[0].Image != "example.com/gone:v1" {
		t.Errorf("containers without an image are %+v", s)
	}

	// A key is replaced, and a record is left whose content is gone.
	file.write(t, stranger.PEM)
	if err := os.Remove(filepath.Join(d.Dir, "root/io.containerd.content.v1.content/blobs/sha256", second.Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	broken := images.Image{Name: "not a reference", Target: ocispec.Descriptor{MediaType: second.MediaType, Digest: second.Digest, Size: second.Size}}
	if _, err := d.Client.ImageService().Create(testContext(t), broken); err != nil {
		t.Fatal(err)
	}
	all = verifyAll(t, d, exitRefused, "of 4 images are refused by rules that enforce, 1 of them used by containers", "1 more could not be judged")
	for _, v := range all.Images {
		if v.Image == signed.name && (v.Result != "refused" || !strings.Contains(v.Reason, "image "+signed.name+" is refused: ") || len(v.Containers) != 3) {
			t.Errorf("of an image whose key is trusted no more it says %+v", v)
		}
		if v.Image == broken.Name && (v.Error == "" || v.Result != "") {
			t.Errorf("of a name that is none it says %+v", v)
		}
	}
	referrers(t, d, "verify", "--all").want(t, exitRefused).prints(t, "\nrefused  image "+signed.name+" is refused: ", "\nerror    image "+broken.Name+" could not be judged: ",
		"\nno image container stray was made from example.com/gone:v1", "\n4 images: ")
	if n := len(reg.Requests()) + len(unruled.Requests()); n > 0 {
		t.Errorf("%d requests of a registry", n)
	}
}

// A rule that only warns ends no script, and says what it would refuse.
func TestVerifyAllWarns(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	d := startDaemon(t, active(trustedKeys(t, "ci", key.PEM)+rule(`verify = "warn"`)+signedBy(`by = ["ci"]`)))
	pull(t, d, image.name)
	referrers(t, d, "verify", "--all").want(t, 0).prints(t, "\nwarned   image "+image.name+" is refused: ", "\n1 image: 1 refused with a warning only (0 used by containers)\n")
	referrers(t, d, "verify", "--all", image.name).want(t, exitUsage, "leave out")
	referrers(t, startDaemon(t, stock), "verify", "--all").want(t, exitError, "no image can be judged: the referrers plugin is not active on the daemon")
}
