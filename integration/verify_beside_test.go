package integration

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/image"
	ctransfer "github.com/containerd/containerd/v2/core/transfer/registry"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// Pulls of one image at a time wait for the same manifest, and none for ever.
func TestManyVerifiedPullsOfOneImage(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushLarge(t, reg, "v1")
	reg.Fail(slow(signatureBlob(t, image, key), 500*time.Millisecond))
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	const pulls = 5
	ended := make(chan error, pulls)
	for range pulls {
		go func() {
			_, err := d.Ctr(testContext(t), "images", "pull", image.name)
			ended <- err
		}()
	}
	for range pulls {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	referrers(t, d, "verify", image.name).want(t, 0)
	wantClean(t, d)
}

// A client that gives up while layers are withheld ends the pull, which leaves nothing.
func TestClientThatGivesUp(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	withheld := pushRuled(t, reg, "v1")
	asked := make(chan struct{})
	late := signatureBlob(t, withheld, key)
	var once sync.Once
	reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, late) {
			once.Do(func() { close(asked) })
			<-r.Context().Done()
		}
		return false
	})
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	src, err := source.New(ctx, withheld.name, source.WithRegistry(ctransfer.WithDefaultScheme("http")))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- d.Client.Transfer(ctx, src, image.NewStore(withheld.name, image.WithPlatforms(amd64)))
	}()
	<-asked
	cancel()
	select {
	case err := <-ended:
		wantError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the pull goes on")
	}
	withheld.wantWithheld(t)
	reg.Fail(nil)
	withheld.verified(t, d)
}

// A refusal closes all that the client is shown.
func TestProgressOfARefusal(t *testing.T) {
	key, stranger := sigstoretest.NewKey(t), sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	signBundle(t, image, stranger)
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	var mu sync.Mutex
	last := map[string]string{}
	wantError(t, clientPull(t, d, image.name, nil, transfer.WithProgress(func(p transfer.Progress) {
		mu.Lock()
		defer mu.Unlock()
		last[p.Name] = p.Event
	})), "SignatureValidationFailed: ")
	mu.Lock()
	defer mu.Unlock()
	if len(last) < 2 {
		t.Errorf("the client is told of %v alone", last)
	}
	for name, event := range last {
		if event == "downloading" {
			t.Errorf("%s ends as %q", name, event)
		}
	}
}

// A mirror that lags behind withdraws nothing: what was verified stays, and counts.
func TestMirrorThatLags(t *testing.T) {
	key := sigstoretest.NewKey(t)
	upstream, mirror := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	image, copied := pushRuled(t, upstream, "v1"), pushRuled(t, mirror, "v1")
	if image.Digest != copied.Digest {
		t.Fatal("they are not the same image")
	}
	signBundle(t, image, key)
	d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
	pull(t, d, image.name)
	hosts := mirrored(t, upstream, mirror)
	pull(t, d, image.name, "--hosts-dir", hosts)
	if mirror.Count("/v2/app/manifests/") == 0 {
		t.Error("the mirror was not asked: the test tests nothing")
	}
	mirror.Fail(unreachable)
	upstream.Fail(registry.ReferrersFail(http.StatusServiceUnavailable))
	pull(t, d, image.name, "--hosts-dir", hosts)
	referrers(t, d, "verify", image.name).want(t, 0)
}

// What an entry needs is gathered, whatever the rule takes besides.
func TestEvidenceIsGatheredWhateverIsTaken(t *testing.T) {
	key := sigstoretest.NewKey(t)
	for _, lines := range [][]string{
		{`artifact_types = ["sboms"]`, "depth = 1"},
		{`artifact_types = ["application/vnd.example.none"]`, "prune = true"},
		{`required = ["application/vnd.example.none"]`},
	} {
		t.Run(strings.Join(lines, " "), func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			image := pushRuled(t, reg, "v1")
			signBundle(t, image, key)
			tagLayers(t, reg, image.Digest, ".att", key.CosignAttestation(t, "", image.Digest, slsa1, map[string]any{}))
			d := startDaemon(t, active(trustedKeys(t, "ci", key.PEM)+rule(append(lines, `verify = "enforce"`)...)+
				signedBy(`by = ["ci"]`)+attestedBy(`predicate_type = "`+slsa1+`"`, `by = ["ci"]`)))
			if strings.HasPrefix(lines[0], "required") {
				wantError(t, pullErr(t, d, image), "lacks referrers") // what is required is required as well
				attach(t, reg, "app", image.Descriptor, "application/vnd.example.none", []byte("approved"))
			}
			image.verified(t, d)
		})
	}
}

// cosign_tags decides whether a signature under a tag can count.
func TestCosignTagsThatAreNotAskedFor(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	tagLayers(t, reg, image.Digest, ".sig", key.CosignSignature(t, reg.Host+"/app", image.Digest))
	config := func(tags string) string {
		return fmt.Sprintf("cosign_tags = %q\n", tags) + trustedKeys(t, "ci", key.PEM) + rule(`verify = "enforce"`) + signedBy(`by = ["ci"]`)
	}
	image.refused(t, startDaemon(t, active(config("never"))))
	image.verified(t, startDaemon(t, active(config("always"))))
}

// A listing that names a signature which the registry does not have leaves the image refused,
// and its reason open; one that it has beside it counts.
func TestSignatureThatIsListedAndGone(t *testing.T) {
	key := sigstoretest.NewKey(t)
	for name, code := range map[string]int{"404": http.StatusNotFound, "500": http.StatusInternalServerError} {
		for _, part := range []string{"manifest", "blob"} {
			t.Run(part+" "+name, func(t *testing.T) {
				reg := startRegistry(t, registry.Olareg)
				image := pushRuled(t, reg, "v1")
				signature := signBundle(t, image, key)
				gone := signature.Digest.String()
				if part == "blob" {
					content := artifactContent(t, reg, signature)
					gone = content[len(content)-2]
				}
				reg.Fail(denied(http.MethodGet, gone, code))
				d := startDaemon(t, enforced(trustedKeys(t, "ci", key.PEM), signedBy(`by = ["ci"]`)))
				image.refused(t, d, " is not known (")
				signBundle(t, image, key)
				pull(t, d, image.name)
				referrers(t, d, "verify", image.name).want(t, 0)
			})
		}
	}
}

// Who an identity is, is compared to its last letter: look-alikes are strangers.
func TestIdentitiesThatLookAlike(t *testing.T) {
	s := sigstoretest.New(t)
	root := trustFile(t, s.Root)
	reg := startRegistry(t, registry.Olareg)
	const issuer, release = "https://token.example.com", "https://git.example.com/org/app/release.yml@refs/tags/v1"
	trusts := trustOf("ci", fmt.Sprintf("trusted_root = [%q]", root),
		fmt.Sprintf(`identities = [{ issuer = %q, subject_regexp = 'https://git\.example\.com/org/[^/]+/release\.yml@refs/tags/v\d+' }]`, issuer))
	d := startDaemon(t, enforced(trusts, signedBy(`by = ["ci"]`)))
	for tag, who := range map[string]struct{ identity, issuer string }{
		"behind":  {release + ".evil.org", issuer},
		"before":  {"https://evil.org/" + release, issuer},
		"issuer":  {release, issuer + ".evil.org"},
		"case":    {strings.ToUpper(release), issuer},
		"another": {"https://git.example.com/org/app/other.yml@refs/tags/v1", issuer},
	} {
		t.Run(tag, func(t *testing.T) {
			image := pushRuled(t, reg, tag)
			referBundle(t, reg, image.Descriptor, sigstoretest.SignPredicateType, s.Signature(t, image.Digest, who.identity, who.issuer))
			image.withholds(t, d, "needs a signature by ci")
		})
	}
	image := pushRuled(t, reg, "release")
	referBundle(t, reg, image.Descriptor, sigstoretest.SignPredicateType, s.Signature(t, image.Digest, release, issuer))
	image.verified(t, d, release)
}
