package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	client "github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/notation/notationtest"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// Who signs keyless, and who says so.
const (
	ciIdentity = "https://git.example.com/org/app/release.yml@refs/tags/v1"
	ciIssuer   = "https://token.example.com"
)

// trustOf is the table of a trust.
func trustOf(name string, lines ...string) string {
	return fmt.Sprintf("\n  [plugins.\"io.containerd.transfer.v1.referrers\".trust.%s]\n    %s\n", name, strings.Join(lines, "\n    "))
}

// trustedKeys is a trust of public keys, each in a file of its own.
func trustedKeys(t *testing.T, name string, keys ...[]byte) string {
	t.Helper()
	var files []string
	for _, key := range keys {
		files = append(files, fmt.Sprintf("%q", trustFile(t, key)))
	}
	return trustOf(name, "keys = ["+strings.Join(files, ", ")+"]")
}

// trustedCI is a trust of the identity that keyless signatures have.
func trustedCI(t *testing.T, name string, s *sigstoretest.Sigstore) string {
	t.Helper()
	return trustOf(name, fmt.Sprintf("trusted_root = [%q]", trustFile(t, s.Root)),
		fmt.Sprintf("identities = [{ issuer = %q, subject = %q }]", ciIssuer, ciIdentity))
}

// trustedVendor is a trust of the root of a signer of the Notary Project.
func trustedVendor(t *testing.T, name string, s *notationtest.Signer) string {
	t.Helper()
	return trustOf(name, fmt.Sprintf("notation_roots = [%q]", trustFile(t, s.RootPEM())), fmt.Sprintf("subjects = [%q]", notationtest.Subject))
}

// trustFile writes a file of a trust, and returns its path.
func trustFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trust")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// signedBy is an entry of a rule's signed, attestedBy one of its attested.
func signedBy(lines ...string) string { return entryOf("signed", lines) }

func attestedBy(lines ...string) string { return entryOf("attested", lines) }

func entryOf(list string, lines []string) string {
	return fmt.Sprintf("\n    [[plugins.\"io.containerd.transfer.v1.referrers\".rules.%s]]\n      %s\n", list, strings.Join(lines, "\n      "))
}

// enforced is a daemon with trusts whose one rule enforces the entries.
func enforced(trusts string, entries ...string) daemon.Config {
	return active(trusts + rule(`verify = "enforce"`) + strings.Join(entries, ""))
}

// ruled is an image that a rule verifies.
type ruled struct {
	ocispec.Descriptor
	reg  *registry.Registry
	name string
	// withheld are its config and its layer: what no refused pull may ask for.
	withheld []digest.Digest
}

// pushRuled puts a small image under the tag.
func pushRuled(t *testing.T, reg *registry.Registry, tag string) ruled {
	t.Helper()
	image := pushSmall(t, reg, "app", tag, t.Name()+" "+tag)
	return ruled{image.Descriptor, reg, reg.Host + "/app:" + tag, image.content[1:]}
}

// reference names the image by its digest.
func (r ruled) reference() string { return r.reg.Host + "/app@" + r.Digest.String() }

// refused pulls an image that must be refused before anything of it but manifests was
// fetched, and checks that nothing of it stays.
func (r ruled) refused(t *testing.T, d *daemon.Daemon, says ...string) {
	t.Helper()
	r.withholds(t, d, says...)
	if out := ctr(t, d, "images", "ls", "-q"); out != "" {
		t.Errorf("there are image records: %s", out)
	}
	if out := ctr(t, d, "snapshots", "ls"); strings.Count(out, "\n") > 1 {
		t.Errorf("there are snapshots: %s", out)
	}
	collect(t, d)
	if left := contents(t, d); len(left) > 0 {
		t.Errorf("stored is %v after a pull that was refused", left)
	}
	wantClean(t, d)
}

// withholds pulls an image that must be refused before anything of it but manifests was
// fetched.
func (r ruled) withholds(t *testing.T, d *daemon.Daemon, says ...string) {
	t.Helper()
	r.reg.Reset()
	_, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", r.name)
	wantError(t, err, append(says, "ctr: SignatureValidationFailed: image "+r.name+" is refused: ")...)
	r.wantWithheld(t)
	if n := len(d.LogLines("referrers: image refused")); n == 0 {
		t.Error("the log has no line of its own for the refusal")
	}
}

// wantWithheld fails where the registry was asked for the image's config or a layer.
func (r ruled) wantWithheld(t *testing.T) {
	t.Helper()
	for _, dgst := range r.withheld {
		if n := r.reg.Count(dgst.String()); n > 0 {
			t.Errorf("%d requests for %s of an image that is refused", n, dgst)
		}
	}
}

// verified pulls an image, and has it verified from the store with the registry cut off.
// counted are the lines of the evidence that counts, such as "sigstore-bundle".
func (r ruled) verified(t *testing.T, d *daemon.Daemon, prints ...string) {
	t.Helper()
	pull(t, d, r.name)
	r.reg.Fail(unreachable)
	defer r.reg.Fail(nil)
	referrers(t, d, "verify", r.name).want(t, 0).prints(t, append(prints, "counted ", "\nverified\n")...)
}

// unreachable is a fault: the registry answers nothing of use.
func unreachable(w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusBadGateway)
	return true
}

// refer puts a referrer beside its subject, and lists it under the fallback tag where the
// registry has no referrers API.
func refer(t *testing.T, reg *registry.Registry, subject ocispec.Descriptor, m ocispec.Manifest, layers ...sigstoretest.Layer) ocispec.Descriptor {
	t.Helper()
	about := subjectOf(subject)
	m.Subject = &about
	if m.Config.Digest == "" {
		m.Config = ocispec.DescriptorEmptyJSON
		pushBlob(t, reg, ocispec.DescriptorEmptyJSON.Data)
	}
	desc := pushLayered(t, reg, "", m, layers...)
	desc.ArtifactType, desc.Annotations = m.ArtifactType, m.Annotations
	if _, listed := get(t, reg, "referrers/"+subject.Digest.String()); !listed {
		index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
		tag := client.FallbackTag(subject.Digest)
		if listing, ok := get(t, reg, "manifests/"+tag); ok {
			if err := json.Unmarshal(listing, &index); err != nil {
				t.Fatal(err)
			}
		}
		index.Manifests = append(index.Manifests, desc)
		put(t, reg, tag, index.MediaType, index)
	}
	return desc
}

// pushLayered puts a manifest with its layers, under a tag or by its digest.
func pushLayered(t *testing.T, reg *registry.Registry, tag string, m ocispec.Manifest, layers ...sigstoretest.Layer) ocispec.Descriptor {
	t.Helper()
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	for _, l := range layers {
		desc := described(l.MediaType, string(l.Data))
		desc.Annotations = l.Annotations
		m.Layers = append(m.Layers, desc)
		pushBlob(t, reg, l.Data)
	}
	return put(t, reg, tag, m.MediaType, m)
}

func pushBlob(t *testing.T, reg *registry.Registry, data []byte) {
	t.Helper()
	if _, err := reg.PushBlob(testContext(t), "app", data); err != nil {
		t.Fatal(err)
	}
}

// get reads from the repository, past the front; false where the registry has no such thing.
func get(t *testing.T, reg *registry.Registry, path string) ([]byte, bool) {
	t.Helper()
	resp, err := http.Get(reg.Backend + "/v2/app/" + path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return data, resp.StatusCode == http.StatusOK
}

// referBundle puts a sigstore bundle beside its subject, as cosign v3 does.
func referBundle(t *testing.T, reg *registry.Registry, subject ocispec.Descriptor, predicateType string, bundle []byte) ocispec.Descriptor {
	t.Helper()
	return refer(t, reg, subject, ocispec.Manifest{
		ArtifactType: sigstoretest.BundleMediaType,
		Annotations: map[string]string{
			"dev.sigstore.bundle.content":       "dsse-envelope",
			"dev.sigstore.bundle.predicateType": predicateType,
		},
	}, sigstoretest.Layer{MediaType: sigstoretest.BundleMediaType, Data: bundle})
}

// signBundle has a key sign, as cosign v3 does.
func signBundle(t *testing.T, image ruled, key *sigstoretest.Key) ocispec.Descriptor {
	t.Helper()
	return referBundle(t, image.reg, image.Descriptor, sigstoretest.SignPredicateType, key.Signature(t, image.Digest))
}

// tagLayers puts what cosign v2 stores, under the tag of its own that ends in suffix.
func tagLayers(t *testing.T, reg *registry.Registry, subject digest.Digest, suffix string, layers ...sigstoretest.Layer) ocispec.Descriptor {
	t.Helper()
	config := `{"architecture":"","config":{},"history":[],"os":"","rootfs":{"type":"layers","diff_ids":[]}}`
	pushBlob(t, reg, []byte(config))
	return pushLayered(t, reg, strings.Replace(subject.String(), ":", "-", 1)+suffix,
		ocispec.Manifest{Config: described(ocispec.MediaTypeImageConfig, config)}, layers...)
}

// referEnvelope puts a signature of the Notary Project beside its subject, as notation does.
func referEnvelope(t *testing.T, reg *registry.Registry, subject ocispec.Descriptor, mediaType string, s *notationtest.Signer) ocispec.Descriptor {
	t.Helper()
	envelope, err := s.Sign(mediaType, subject)
	if err != nil {
		t.Fatal(err)
	}
	return refer(t, reg, subject, ocispec.Manifest{ArtifactType: notationtest.ArtifactType}, sigstoretest.Layer{MediaType: mediaType, Data: envelope})
}

// newVendor is a signer of the Notary Project.
func newVendor(t *testing.T) *notationtest.Signer {
	t.Helper()
	s, err := notationtest.New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
