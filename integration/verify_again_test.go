package integration

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	client "github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// keyFile is a file of a trust that the operator writes again.
type keyFile string

func newKeyFile(t *testing.T, key []byte) keyFile {
	t.Helper()
	f := keyFile(filepath.Join(t.TempDir(), "ci.pub"))
	f.write(t, key)
	return f
}

// write replaces the file, as editors and configuration management do: by a rename.
func (f keyFile) write(t *testing.T, data []byte) {
	t.Helper()
	if err := os.WriteFile(string(f)+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(string(f)+".new", string(f)); err != nil {
		t.Fatal(err)
	}
}

func (f keyFile) trust() string { return trustOf("ci", `keys = ["`+string(f)+`"]`) }

// judged is what `ctr referrers verify --format json` says.
func judged(t *testing.T, d *daemon.Daemon, image string, code int) *explain.Verification {
	t.Helper()
	ran := referrers(t, d, "verify", "--format", "json", image).want(t, code)
	v := &explain.Verification{}
	if err := json.Unmarshal([]byte(ran.stdout), v); err != nil {
		t.Fatalf("%v in %s", err, ran.stdout)
	}
	return v
}

// pulledSigned pulls an image that key signed, into a daemon that trusts the file.
func pulledSigned(t *testing.T, file keyFile, key *sigstoretest.Key, lines ...string) (*daemon.Daemon, ruled, digest.Digest) {
	t.Helper()
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	signature := signBundle(t, image, key).Digest
	d := startDaemon(t, active(strings.Join(lines, "\n")+file.trust()+rule(`verify = "enforce"`)+signedBy(`by = ["ci"]`)))
	pull(t, d, image.name)
	return d, image, signature
}

// A pull again is judged by the trust of then: a key that was replaced verifies nothing that it
// signed, and the image's record stays as it was.
func TestPullAgainByTodaysTrust(t *testing.T) {
	was, is := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	file := newKeyFile(t, was.PEM)
	d, image, signature := pulledSigned(t, file, was)
	before := ctr(t, d, "images", "ls")
	content := contents(t, d)

	file.write(t, is.PEM)
	image.withholds(t, d, "needs a signature by ci")
	if after := ctr(t, d, "images", "ls"); after != before {
		t.Errorf("the record was\n%s\nand is\n%s", before, after)
	}
	collect(t, d)
	if left := contents(t, d); !sameDigests(left, content) {
		t.Errorf("stored was %v, and is %v", content, left)
	}
	referrers(t, d, "verify", image.name).want(t, exitRefused, "SignatureValidationFailed: ").prints(t, "ignored sigstore-bundle "+signature.String())

	signBundle(t, image, is)
	image.verified(t, d, "signed by "+keyIdentity(t, is.PEM))
	if lines := d.LogLines("referrers: a trust has changed"); len(lines) != 1 {
		t.Errorf("the log says of the change %q", lines)
	}
}

// A trust whose file is broken goes on with what it was before, and the log says so, once.
func TestBrokenTrustKeepsTheLast(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	file := newKeyFile(t, key.PEM)
	d, image, _ := pulledSigned(t, file, key)
	foreign := pushRuled(t, image.reg, "foreign")
	signBundle(t, foreign, stranger)
	dir := string(file) + ".dir"
	for name, breaks := range map[string]func(){
		"no key": func() { file.write(t, []byte("-----BEGIN PUBLIC KEY-----\n")) },
		"empty":  func() { file.write(t, nil) },
		"gone": func() {
			if err := os.Remove(string(file)); err != nil {
				t.Fatal(err)
			}
		},
		"a directory": func() {
			if err := os.Rename(string(file), dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(string(file), 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			said := len(d.LogLines("cannot be used, and what was read before them still counts"))
			breaks()
			image.verified(t, d)
			foreign.withholds(t, d)
			lines := d.LogLines("cannot be used, and what was read before them still counts")
			if len(lines) != said+1 || !strings.Contains(lines[said], "level=error") {
				t.Errorf("the log says %q", lines[said:])
			}
			if name == "a directory" {
				if err := os.Remove(string(file)); err != nil {
					t.Fatal(err)
				}
			}
			file.write(t, key.PEM) // mends it
			image.verified(t, d)
		})
	}
	file.write(t, stranger.PEM)
	image.withholds(t, d)
	pull(t, d, foreign.name)
}

// withdrawals are the ways in which a signature lies in a registry, and is withdrawn.
var withdrawals = map[string]struct {
	kind registry.Kind
	sign func(t *testing.T, image ruled, key *sigstoretest.Key) ocispec.Descriptor
	// withdraw takes it away, and leaves an answer that is complete.
	withdraw func(t *testing.T, image ruled, signature ocispec.Descriptor)
}{
	"referrer": {registry.Olareg, signBundle, withdrawManifest},
	"tag": {registry.Olareg, func(t *testing.T, image ruled, key *sigstoretest.Key) ocispec.Descriptor {
		return tagLayers(t, image.reg, image.Digest, ".sig", key.CosignSignature(t, image.reg.Host+"/app", image.Digest))
	}, withdrawManifest},
	"fallback tag": {registry.Distribution, signBundle, func(t *testing.T, image ruled, _ ocispec.Descriptor) {
		put(t, image.reg, client.FallbackTag(image.Digest), ocispec.MediaTypeImageIndex, imageIndex(nil))
	}},
}

func withdrawManifest(t *testing.T, image ruled, signature ocispec.Descriptor) {
	t.Helper()
	if err := image.reg.DeleteManifest(testContext(t), "app", signature.Digest); err != nil {
		t.Fatal(err)
	}
}

// A signature that was withdrawn from the registry counts no longer, neither at a pull nor for
// what is stored.
func TestWithdrawnSignatureIsRefused(t *testing.T) {
	for name, way := range withdrawals {
		t.Run(name, func(t *testing.T) {
			key := sigstoretest.NewKey(t)
			reg := startRegistry(t, way.kind)
			image := pushRuled(t, reg, "v1")
			signature := way.sign(t, image, key)
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
			pull(t, d, image.name)
			way.withdraw(t, image, signature)
			referrers(t, d, "verify", image.name).want(t, 0) // nobody has asked the registry since
			image.withholds(t, d)
			if out := ctr(t, d, "referrers", "ls", image.name); !strings.Contains(out, ", no longer listed since ") {
				t.Errorf("what was withdrawn is not marked:\n%s", out)
			}
			reg.Fail(unreachable)
			referrers(t, d, "verify", image.name).want(t, exitRefused).prints(t,
				"ignored referrer "+signature.Digest.String(), "it was withdrawn: the registry lists it no longer")
			reg.Fail(registry.ReferrersFail(http.StatusBadGateway)) // an outage brings nothing back
			image.withholds(t, d)
			reg.Fail(nil)
			way.sign(t, image, key)
			image.verified(t, d)
		})
	}
}

// Where the registry tells nothing of referrers what is stored counts; where nothing is stored
// the image is refused.
func TestUnknownReferrers(t *testing.T) {
	key := sigstoretest.NewKey(t)
	for name, fault := range map[string]registry.Fault{
		"502":              registry.ReferrersFail(http.StatusBadGateway),
		"403":              registry.ReferrersFail(http.StatusForbidden),
		"a blob that 502s": denied(http.MethodGet, "/blobs/", http.StatusBadGateway),
	} {
		t.Run(name, func(t *testing.T) {
			d, image, _ := pulledSigned(t, newKeyFile(t, key.PEM), key)
			image.reg.Fail(fault)
			pull(t, d, image.name)
			referrers(t, d, "verify", image.name).want(t, 0)

			unknown := pushRuled(t, image.reg, "unknown")
			signBundle(t, unknown, key)
			unknown.withholds(t, d, "is not known (")
			image.reg.Fail(nil)
			unknown.verified(t, d)
		})
	}
}

// A limit that cuts what refers to an image fails it, unless what came is enough.
func TestTruncatedReferrers(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	signed, unsigned := pushRuled(t, reg, "signed"), pushRuled(t, reg, "unsigned")
	for _, image := range []ruled{signed, unsigned} {
		for _, text := range []string{"1", "2", "3"} {
			attach(t, reg, "app", image.Descriptor, sigstoretest.BundleMediaType, []byte(text))
		}
	}
	trusts := trustedKeys(t, "ci", key.PEM)
	d := startDaemon(t, active("max_referrers = 2\n"+trusts+rule(`verify = "enforce"`)+signedBy(`by = ["ci"]`)))
	unsigned.refused(t, d, "a limit cut what refers to ")

	tagLayers(t, reg, signed.Digest, ".sig", key.CosignSignature(t, reg.Host+"/app", signed.Digest))
	signed.verified(t, d)
}

// pullErr pulls an image, and returns what became of it.
func pullErr(t *testing.T, d *daemon.Daemon, image ruled) error {
	t.Helper()
	_, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", image.name)
	return err
}
