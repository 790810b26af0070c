package integration

import (
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// served answers requests for a tag of the repository with another manifest than the registry
// would, from the nth request on.
func served(t *testing.T, from ruled, tag string, nth int32) registry.Fault {
	t.Helper()
	data := manifestOf(t, from.reg, "app", from.Digest)
	var asked atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v2/app/manifests/"+tag || asked.Add(1) < nth {
			return false
		}
		w.Header().Set("Content-Type", from.MediaType)
		w.Header().Set("Docker-Content-Digest", from.Digest.String())
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if r.Method != http.MethodHead {
			_, _ = fmt.Fprint(w, data)
		}
		return true
	}
}

// V17: a proxy answers the second question about a tag with another image. What is verified is
// what is stored: one resolution decides.
func TestTagThatMovesInMidVerification(t *testing.T) {
	key := sigstoretest.NewKey(t)
	for _, nth := range []int32{1, 2} {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			signed, unsigned := pushRuled(t, reg, "v1"), pushRuled(t, reg, "evil")
			signBundle(t, signed, key)
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
			reg.Fail(served(t, unsigned, "v1", nth))
			_, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", signed.name)
			unsigned.wantWithheld(t)
			if nth == 1 {
				wantError(t, err, "SignatureValidationFailed: ")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantRecord(t, d, signed.name, signed.Digest)
			// The tag has moved by now: the next pull is of the other.
			_, err = d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", signed.name)
			wantError(t, err, "SignatureValidationFailed: ")
			wantRecord(t, d, signed.name, signed.Digest)
			unsigned.wantWithheld(t)
		})
	}
}

// V21: a signature of the one image is none of its sibling's, whatever form it has, and under
// whatever name it lies.
func TestSignatureOfASibling(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	sibling := pushRuled(t, reg, "sibling")
	vendor := newVendor(t)
	for tag, tc := range map[string]struct {
		sign func(t *testing.T, image, named ruled)
		says string
	}{
		"bundle": {func(t *testing.T, image, named ruled) {
			referBundle(t, reg, image.Descriptor, sigstoretest.SignPredicateType, key.Signature(t, named.Digest))
		}, "it is about something else"},
		"tag": {func(t *testing.T, image, named ruled) {
			tagLayers(t, reg, image.Digest, ".sig", key.CosignSignature(t, reg.Host+"/app", named.Digest))
		}, "cosign-signature "},
		"attestation": {func(t *testing.T, image, named ruled) {
			tagLayers(t, reg, image.Digest, ".sig", key.CosignAttestation(t, "", named.Digest, sigstoretest.SignPredicateType, map[string]any{}))
		}, ""},
		"notation": {func(t *testing.T, image, named ruled) {
			envelope, err := vendor.Sign("application/jose+json", named.Descriptor)
			if err != nil {
				t.Fatal(err)
			}
			refer(t, reg, image.Descriptor, ocispec.Manifest{ArtifactType: "application/vnd.cncf.notary.signature"},
				sigstoretest.Layer{MediaType: "application/jose+json", Data: envelope})
		}, "notation "},
	} {
		t.Run(tag, func(t *testing.T) {
			image := pushRuled(t, reg, tag)
			tc.sign(t, image, sibling)
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM)+trustedVendor(t, "vendor", vendor), signedBy(`by = ["ci", "vendor"]`)))
			image.refused(t, d, tc.says)
			if tag == "attestation" {
				tagLayers(t, reg, image.Digest, ".sig", key.CosignSignature(t, reg.Host+"/app", image.Digest))
			} else {
				tc.sign(t, image, image)
			}
			image.verified(t, d)
		})
	}
}

// V21: a bundle of a stranger in the listing hides no cosign tag.
func TestStrangersBundleHidesNoTag(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
		t.Run(string(kind), func(t *testing.T) {
			reg := startRegistry(t, kind)
			image := pushRuled(t, reg, "v1")
			signBundle(t, image, stranger)
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
			image.refused(t, d)
			tagLayers(t, reg, image.Digest, ".sig", key.CosignSignature(t, reg.Host+"/app", image.Digest))
			image.verified(t, d, "counted cosign-signature ")
			reg.Reset()
			signBundle(t, image, key) // now the listing is enough
			pull(t, d, image.name)
			if n := reg.Count(".sig"); n > 0 {
				t.Errorf("%d requests for the tag of an image whose listing verifies it", n)
			}
		})
	}
}

// V21: a registry that sits on the signature holds the pull no longer than timeout, and no
// layer comes; one that answers in time is waited for.
func TestSignatureAfterTheTimeout(t *testing.T) {
	key := sigstoretest.NewKey(t)
	for _, tc := range []struct {
		name      string
		substring string
	}{{"listing", "/referrers/"}, {"manifest", "/manifests/"}, {"blob", "/blobs/"}} {
		t.Run(tc.name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			image := pushRuled(t, reg, "v1")
			signature := signBundle(t, image, key)
			blobs := artifactContent(t, reg, signature)
			stall := func(r *http.Request) bool {
				base := path.Base(r.URL.Path)
				return strings.Contains(r.URL.Path, tc.substring) && (tc.name == "listing" || strings.Contains(strings.Join(blobs, " "), base))
			}
			d := startDaemon(t, active("timeout = \"2s\"\n"+trustedKeys(t, "ci", key.PEM)+rule(`verify = "enforce"`)+signedBy(`by = ["ci"]`)))
			reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
				if stall(r) {
					<-r.Context().Done()
				}
				return false
			})
			began := time.Now()
			image.refused(t, d, "is not known (")
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("the refusal took %s", took)
			}
			reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
				if stall(r) {
					time.Sleep(300 * time.Millisecond)
				}
				return false
			})
			pull(t, d, image.name)
			referrers(t, d, "verify", image.name).want(t, 0)
		})
	}
}

// artifactContent returns the digests of a referrer's manifest and of what it names.
func artifactContent(t *testing.T, reg *registry.Registry, desc ocispec.Descriptor) []string {
	t.Helper()
	out := []string{desc.Digest.String()}
	for _, part := range strings.Split(manifestOf(t, reg, "app", desc.Digest), `"digest":"`)[1:] {
		out = append(out, part[:strings.IndexByte(part, '"')])
	}
	return out
}

// V21: evidence over the limit of size is not read, and what else there is counts.
func TestEvidenceOverTheLimit(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	bundle := key.Signature(t, image.Digest)
	large := append(bundle, strings.Repeat(" ", evidence.MaxSize-len(bundle)+1)...)
	referBundle(t, reg, image.Descriptor, sigstoretest.SignPredicateType, large)
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	image.refused(t, d, fmt.Sprintf("evidence over %d bytes is not read", evidence.MaxSize))
	referBundle(t, reg, image.Descriptor, sigstoretest.SignPredicateType, bundle)
	image.verified(t, d)
}

// V7: of masses of signatures under one manifest so many are examined; the reason says so.
func TestMassesOfSignatures(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	foreign := stranger.CosignSignature(t, reg.Host+"/app", image.Digest)
	mine := key.CosignSignature(t, reg.Host+"/app", image.Digest)
	// cosign puts the newest behind the others, and those are examined first.
	masses := func(n int) []sigstoretest.Layer {
		layers := []sigstoretest.Layer{mine}
		for range n {
			layers = append(layers, foreign)
		}
		return layers
	}
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	tagLayers(t, reg, image.Digest, ".sig", masses(evidence.MaxPerReferrer)...)
	image.refused(t, d, fmt.Sprintf("more than %d signatures and attestations", evidence.MaxPerReferrer))
	tagLayers(t, reg, image.Digest, ".sig", masses(evidence.MaxPerReferrer-1)...)
	image.verified(t, d)
}

// V21: labels claim nothing. What is written to the store beside the plugin is judged as what
// comes from a registry: a stranger's signature that labels tie to an image counts not.
func TestLabelsThatClaimAVerdict(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	signature := signBundle(t, image, stranger)
	d := startDaemon(t, active(trustedKeys(t, "ci", key.PEM)+rule(`verify = "warn"`)+signedBy(`by = ["ci"]`)))
	pull(t, d, image.name)
	for _, dgst := range []digest.Digest{image.Digest, signature.Digest} {
		info := content.Info{Digest: dgst, Labels: map[string]string{
			"transfer-referrers.verified": "true", "transfer-referrers.verdict": "verified",
			"io.transfer-referrers/verdict": "verified", "containerd.io/verified": "true",
		}}
		var paths []string
		for key := range info.Labels {
			paths = append(paths, "labels."+key)
		}
		if _, err := d.Client.ContentStore().Update(testContext(t), info, paths...); err != nil {
			t.Fatal(err)
		}
	}
	referrers(t, d, "verify", image.name).want(t, exitRefused)
	ctr(t, d, "images", "label", image.name, "transfer-referrers.verdict=verified")
	referrers(t, d, "verify", image.name).want(t, exitRefused)
	signBundle(t, image, key)
	pull(t, d, image.name)
	referrers(t, d, "verify", image.name).want(t, 0)
}

// V21: a daemon that was killed between the pull and the question says the same.
func TestVerifiedAfterARestart(t *testing.T) {
	key := sigstoretest.NewKey(t)
	file := newKeyFile(t, key.PEM)
	d, image, _ := pulledSigned(t, file, key)
	restartKilled := func() {
		if err := d.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := d.Restart(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	restartKilled()
	image.reg.Fail(unreachable)
	referrers(t, d, "verify", image.name).want(t, 0)
	file.write(t, sigstoretest.NewKey(t).PEM)
	restartKilled()
	referrers(t, d, "verify", image.name).want(t, exitRefused)
}

// V21: a trust that is replaced in the middle of a pull judges it at its end.
func TestTrustReplacedInMidPull(t *testing.T) {
	was, is := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	for _, tc := range []struct {
		name    string
		signs   []*sigstoretest.Key
		refused bool
	}{{"signed by the old", []*sigstoretest.Key{was}, true}, {"signed by both", []*sigstoretest.Key{was, is}, false}} {
		t.Run(tc.name, func(t *testing.T) {
			file := newKeyFile(t, was.PEM)
			reg := startRegistry(t, registry.Olareg)
			image := pushRuled(t, reg, "v1")
			for _, key := range tc.signs {
				signBundle(t, image, key)
			}
			d := startDaemon(t, enforced(file.trust(), signedBy(`by = ["ci"]`)))
			var once sync.Once
			reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
				// The layer is asked for once the image is verified.
				if strings.HasSuffix(r.URL.Path, image.withheld[1].String()) {
					once.Do(func() { file.write(t, is.PEM) })
				}
				return false
			})
			err := pullErr(t, d, image)
			if !tc.refused {
				if err != nil {
					t.Fatal(err)
				}
				referrers(t, d, "verify", image.name).want(t, 0)
				return
			}
			wantError(t, err, "ctr: SignatureValidationFailed: image "+image.name+" is refused: ")
			if out := ctr(t, d, "images", "ls", "-q"); out != "" {
				t.Errorf("there are image records: %s", out)
			}
			wantClean(t, d)
		})
	}
}

// V21: a root that is neither manifest nor index, or calls itself something else, runs under
// no rule that verifies.
func TestVerifiedRootOfAnotherKind(t *testing.T) {
	key := sigstoretest.NewKey(t)
	for _, mediaType := range []string{"application/octet-stream", "application/vnd.oci.image.layer.v1.tar", "APPLICATION/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws"} {
		t.Run(path.Base(mediaType), func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			image := pushRuled(t, reg, "v1")
			d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
			data := manifestOf(t, reg, "app", image.Digest)
			reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, "/v2/app/manifests/v1") && !strings.HasSuffix(r.URL.Path, image.Digest.String()) {
					return false
				}
				w.Header().Set("Content-Type", mediaType)
				w.Header().Set("Docker-Content-Digest", image.Digest.String())
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				if r.Method != http.MethodHead {
					_, _ = fmt.Fprint(w, data)
				}
				return true
			})
			reg.Reset()
			if err := pullErr(t, d, image); err == nil {
				t.Error("the pull succeeded")
			}
			image.wantWithheld(t)
			if out := ctr(t, d, "images", "ls", "-q"); out != "" {
				t.Errorf("there are image records: %s", out)
			}
			reg.Fail(nil)
			signBundle(t, image, key)
			image.verified(t, d)
		})
	}
}

// V7: over all referrers of an image so many pieces of evidence are examined; where none of
// those counts the image is refused with the number.
func TestMassesOfEvidenceOfOneImage(t *testing.T) {
	const most = 1024 // of an image
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	foreign := stranger.CosignSignature(t, reg.Host+"/app", image.Digest)
	layers := make([]sigstoretest.Layer, evidence.MaxPerReferrer)
	for i := range layers {
		layers[i] = foreign
	}
	refers := func(n int, layers ...sigstoretest.Layer) {
		refer(t, reg, image.Descriptor, ocispec.Manifest{
			ArtifactType: "application/vnd.dev.cosign.artifact.sig.v1+json", Annotations: map[string]string{"n": fmt.Sprint(n)},
		}, layers...)
	}
	for n := range most/evidence.MaxPerReferrer - 1 {
		refers(n, layers...)
	}
	refers(-1, key.CosignSignature(t, reg.Host+"/app", image.Digest))
	config := enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`))
	image.verified(t, startDaemon(t, config))
	strangers := enforced(trustedKeys(t, "ci", sigstoretest.NewKey(t).PEM), signedBy(`by = ["ci"]`))
	refers(-2, layers...)
	refers(-3, layers...)
	image.refused(t, startDaemon(t, strangers), fmt.Sprintf("more than %d pieces ", most))
}

// An image that is there under a name that no rule is for runs under a ruled name as any
// other: refused, and what is there stays.
func TestPresentImageIsRefusedUnderARuledName(t *testing.T) {
	key := sigstoretest.NewKey(t)
	free, reg := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	there, image := pushRuled(t, free, "v1"), pushRuled(t, reg, "v1")
	if there.Digest != image.Digest {
		t.Fatal("they are not the same image")
	}
	d := startDaemon(t, active(trustedKeys(t, "ci", key.PEM)+strings.ReplaceAll(rule(`verify = "enforce"`), `"**"`, `"`+reg.Host+`/**"`)+signedBy(`by = ["ci"]`)))
	pull(t, d, there.name)
	before := contents(t, d)
	image.withholds(t, d, "nothing of the kind refers to it")
	if out := strings.TrimSpace(ctr(t, d, "images", "ls", "-q")); out != there.name {
		t.Errorf("there are the records %q", out)
	}
	collect(t, d)
	if after := contents(t, d); !sameDigests(before, after) {
		t.Errorf("stored was %v, and is %v", before, after)
	}
	ctr(t, d, "images", "tag", there.name, image.name)
	referrers(t, d, "verify", image.name).want(t, exitRefused)
	referrers(t, d, "verify", there.name).want(t, exitNone)
	ctr(t, d, "images", "rm", image.name)
	signBundle(t, image, key)
	image.verified(t, d)
}

// Two pulls of one image at a time, of which one is refused, hold each other up no longer than
// the verdict takes.
func TestRefusalBesideAnotherPull(t *testing.T) {
	key := sigstoretest.NewKey(t)
	free, reg := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	there, image := pushLarge(t, free, "v1"), pushLarge(t, reg, "v1")
	signature := signatureBlob(t, image, sigstoretest.NewKey(t))
	d := startDaemon(t, active(trustedKeys(t, "ci", key.PEM)+strings.ReplaceAll(rule(`verify = "enforce"`), `"**"`, `"`+reg.Host+`/**"`)+signedBy(`by = ["ci"]`)))
	reg.Fail(slow(signature, time.Second))
	began := time.Now()
	ended := make(chan error, 2)
	for _, name := range []string{image.name, there.name} {
		go func() {
			_, err := d.Ctr(testContext(t), "images", "pull", name)
			if name == image.name && (err == nil || !strings.Contains(err.Error(), "SignatureValidationFailed: ")) {
				err = fmt.Errorf("the pull that is refused ended with %w", err)
			} else if name == image.name {
				err = nil
			}
			ended <- err
		}()
	}
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("they took %s", took)
	}
	image.wantWithheld(t)
	if out := strings.TrimSpace(ctr(t, d, "images", "ls", "-q")); out != there.name {
		t.Errorf("there are the records %q", out)
	}
	wantClean(t, d)
}

// An image that is named by its digest is judged as one that is named by a tag.
func TestPullByDigestIsVerified(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	image.name = image.reference()
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	image.refused(t, d)
	signBundle(t, image, key)
	image.verified(t, d)
}

// V13: a trusted root that is older than the one before it is used, and the log says so: an
// operator may mean it, and somebody else may too.
func TestOlderTrustedRoot(t *testing.T) {
	older := sigstoretest.New(t)
	time.Sleep(1100 * time.Millisecond) // what certificates can tell
	newer := sigstoretest.New(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	referBundle(t, reg, image.Descriptor, sigstoretest.SignPredicateType, newer.Signature(t, image.Digest, ciIdentity, ciIssuer))
	file := newKeyFile(t, newer.Root)
	d := startDaemon(t, enforced(trustOf("ci", `trusted_root = ["`+string(file)+`"]`,
		fmt.Sprintf("identities = [{ issuer = %q, subject = %q }]", ciIssuer, ciIdentity)), signedBy(`by = ["ci"]`)))
	image.verified(t, d)
	file.write(t, older.Root)
	image.withholds(t, d)
	if lines := d.LogLines("a trust was replaced by an older one"); len(lines) != 1 || !strings.Contains(lines[0], "level=warning") {
		t.Errorf("the log says %q", lines)
	}
	file.write(t, newer.Root)
	image.verified(t, d)
}
