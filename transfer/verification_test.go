package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	imagestore "github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/local"
	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// Pulls that a rule verifies, with a loader of trusts that is easy to satisfy: evidence is a bundle {"by": …, "of": digest}, which
// counts where by is what the trust's file holds.

type namedLoader struct{}

func (namedLoader) Kinds() []trust.Kind { return []trust.Kind{trust.Keys} }

func (namedLoader) Load(_ trust.Config, files []trust.File) (trust.Verifier, error) {
	return namedVerifier(strings.TrimSpace(string(files[0].Data))), nil
}

type namedVerifier string

func (n namedVerifier) Facts() trust.Facts {
	return trust.Facts{Identities: 1, Names: []string{string(n)}}
}

func (n namedVerifier) Verify(_ context.Context, e evidence.Evidence) (evidence.Verified, error) {
	var s struct{ By, Of string }
	if err := json.Unmarshal(e.Data, &s); err != nil || s.By != string(n) || s.Of != e.Subject.Digest.String() {
		return evidence.Verified{}, fmt.Errorf("it is by another: %w", errdefs.ErrPermissionDenied)
	}
	return evidence.Verified{Kind: evidence.Signature, Identity: string(n)}, nil
}

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

func (b *bench) namedJudge() *judge.Judge {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("ours"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	trusts, err := trust.Open(map[string]trust.Config{"release": {Keys: []string{file}}}, namedLoader{})
	if err != nil {
		b.t.Fatal(err)
	}
	return judge.New(trusts, nil)
}

// runnable is an image manifest with a config and a layer.
func (b *bench) runnable(name string) (manifest, config, layer ocispec.Descriptor) {
	config = b.put(name+" config", ocispec.MediaTypeImageConfig, ocispec.Image{Author: name, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	layer = b.put(name+" layer", ocispec.MediaTypeImageLayerGzip, map[string]string{"layer": name})
	manifest = b.put(name, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
	})
	return manifest, config, layer
}

// signed puts a signature of a manifest.
func (b *bench) signed(by string, subject ocispec.Descriptor) ocispec.Descriptor {
	blob := b.put("signature", bundleType, map[string]string{"by": by, "of": subject.Digest.String()})
	plain := ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	desc := b.put("signature of "+by, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: bundleType,
		Config: b.put("empty", ocispec.MediaTypeEmptyJSON, []byte("{}")), Layers: []ocispec.Descriptor{blob}, Subject: &plain,
	})
	desc.ArtifactType = bundleType
	return desc
}

var enforceRule = policy.Rule{Repositories: []string{"**"}, Verify: policy.VerifyEnforce, Signed: []policy.Signed{{By: []string{"release"}}}}

// serveIn serves what was put in a repository, with root under the tag v1.
func (b *bench) serveIn(server *hostile.Server, repository string, root ocispec.Descriptor, referrers map[digest.Digest][]ocispec.Descriptor) {
	b.t.Helper()
	for dgst, data := range b.blobs {
		var m struct{ MediaType string }
		if err := json.Unmarshal(data, &m); err != nil {
			b.t.Fatal(err)
		}
		answer := hostile.Content(m.MediaType, data).With("Docker-Content-Digest", dgst.String())
		server.On("/v2/"+repository+"/manifests/"+dgst.String(), answer)
		server.On("/v2/"+repository+"/blobs/"+dgst.String(), answer)
		if dgst == root.Digest {
			server.On("/v2/"+repository+"/manifests/v1", answer)
		}
		server.On("/v2/"+repository+"/referrers/"+dgst.String(), hostile.Index(referrers[dgst]...))
	}
}

func (b *bench) verifyingPuller(timeout time.Duration, rules ...policy.Rule) *Transferrer {
	b.t.Helper()
	if rules == nil {
		rules = []policy.Rule{enforceRule}
	}
	p, err := policy.New(rules)
	if err != nil {
		b.t.Fatal(err)
	}
	limits := gather.DefaultLimits
	limits.Timeout = timeout
	return New(Config{
		Local: local.NewTransferService(b.store, b.images, local.TransferConfig{}), Store: b.store, Images: b.images, Policy: p,
		Judge: b.namedJudge(), Limits: limits, Cosign: gather.CosignAuto,
	})
}

func (b *bench) pullFrom(ctx context.Context, t *Transferrer, ref string, opts ...imagestore.StoreOpt) error {
	b.t.Helper()
	src, err := ociregistry.NewOCIRegistry(ctx, ref)
	if err != nil {
		b.t.Fatal(err)
	}
	return t.Transfer(ctx, src, imagestore.NewStore(ref, opts...))
}

func asked(server *hostile.Server, dgst digest.Digest) int {
	n := 0
	for _, r := range server.Requests() {
		if strings.HasSuffix(r.Path, dgst.String()) && !strings.Contains(r.Path, "/referrers/") {
			n++
		}
	}
	return n
}

// Thirty-two manifests wait, which is as many as containerd's dispatch handles at a time, and
// the index behind them is never read: the pull must end by its timeout.
func TestVerifiedPullEndsByItsTimeout(t *testing.T) {
	b := newBench(t)
	b.remote = true
	var first []ocispec.Descriptor
	for i := range 32 {
		m, _, _ := b.runnable(fmt.Sprint("manifest ", i))
		first = append(first, on("linux/amd64", m))
	}
	last, _, _ := b.runnable("last")
	deepest := b.index("deepest", on("linux/amd64", last))
	one, two := b.index("one", first...), b.index("two", deepest)
	root := b.index("root", one, two)
	server := hostile.New(t)
	b.serveIn(server, "app", root, nil)
	two1 := hostile.Content(two.MediaType, b.blobs[two.Digest]).With("Docker-Content-Digest", two.Digest.String())
	two1.Drip = 2 * time.Millisecond // so that what one names comes first
	server.On("/v2/app/manifests/"+two.Digest.String(), two1)
	puller := b.verifyingPuller(2 * time.Second)
	ctx, cancel := context.WithTimeoutCause(b.ctx, 20*time.Second, errors.New("it hangs"))
	defer cancel()
	began := time.Now()
	err := b.pullFrom(ctx, puller, server.Host()+"/app:v1", imagestore.WithPlatforms(platforms.MustParse("linux/amd64")))
	if took := time.Since(began); took > 10*time.Second || err == nil || !strings.HasPrefix(err.Error(), verdict.Prefix) {
		t.Errorf("the pull took %s, with a timeout of 2 s: %v", took, err)
	}
}

// An index may name blobs: they are no manifests, and containerd fetches them.
func TestBlobsInAnIndexAreWithheld(t *testing.T) {
	b := newBench(t)
	b.remote = true
	m, config, layer := b.runnable("unsigned")
	root := b.index("root", on("linux/amd64", m), config, layer)
	server := hostile.New(t)
	b.serveIn(server, "app", root, nil)
	err := b.pullFrom(b.ctx, b.verifyingPuller(2*time.Second), server.Host()+"/app:v1", imagestore.WithPlatforms(platforms.MustParse("linux/amd64")))
	if err == nil {
		t.Error("it is pulled")
	}
	for _, desc := range []ocispec.Descriptor{config, layer} {
		if n := asked(server, desc.Digest); n > 0 {
			t.Errorf("%d requests for %s of an image that is refused: %v", n, b.named[desc.Digest], err)
		}
	}
}

// An entry of an index that is called an attestation needs no evidence: it must be one.
func TestAttestationWithLayersOfAnImage(t *testing.T) {
	b := newBench(t)
	b.remote = true
	good, _, _ := b.runnable("signed")
	evil, _, layer := b.runnable("evil")
	evil = attestation(on("unknown/unknown", evil))
	root := b.index("root", on("linux/amd64", good), evil)
	server := hostile.New(t)
	signature := b.signed("ours", good)
	b.serveIn(server, "app", root, map[digest.Digest][]ocispec.Descriptor{good.Digest: {signature}})
	err := b.pullFrom(b.ctx, b.verifyingPuller(2*time.Second), server.Host()+"/app:v1") // all platforms
	if err != nil {
		t.Error(err)
	}
	if n := asked(server, layer.Digest); n > 0 {
		t.Errorf("%d requests for a layer that nobody signed: %v", n, err)
	}
}

// Who pulls a copy from elsewhere must not keep a signature that its repository withdrew.
func TestWithdrawnSignatureOfWhatIsCopied(t *testing.T) {
	b := newBench(t)
	b.remote = true
	root, _, _ := b.runnable("signed")
	signature := b.signed("ours", root)
	server := hostile.New(t)
	listed := map[digest.Digest][]ocispec.Descriptor{root.Digest: {signature}}
	b.serveIn(server, "app", root, listed)
	b.serveIn(server, "copy", root, listed)
	puller := b.verifyingPuller(5 * time.Second)
	for _, ref := range []string{"/app:v1", "/copy:v1"} {
		if err := b.pullFrom(b.ctx, puller, server.Host()+ref); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(10 * time.Millisecond)
	server.On("/v2/app/referrers/"+root.Digest.String(), hostile.Index())
	if err := b.pullFrom(b.ctx, b.verifyingPuller(5*time.Second), server.Host()+"/app:v1"); err == nil {
		t.Error("the signature was withdrawn from /app, and the image is pulled from there")
	}
}

// The same without the copy, for comparison.
func TestWithdrawnSignature(t *testing.T) {
	b := newBench(t)
	b.remote = true
	root, _, _ := b.runnable("signed")
	signature := b.signed("ours", root)
	server := hostile.New(t)
	b.serveIn(server, "app", root, map[digest.Digest][]ocispec.Descriptor{root.Digest: {signature}})
	if err := b.pullFrom(b.ctx, b.verifyingPuller(5*time.Second), server.Host()+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	server.On("/v2/app/referrers/"+root.Digest.String(), hostile.Index())
	if err := b.pullFrom(b.ctx, b.verifyingPuller(5*time.Second), server.Host()+"/app:v1"); err == nil {
		t.Error("the signature was withdrawn, and the image is pulled")
	}
}

// What an index says of a platform must not reach a terminal as it is, nor end the first line.
func TestRefusalIsFitForATerminal(t *testing.T) {
	b := newBench(t)
	b.remote = true
	m, _, _ := b.runnable("unsigned")
	m.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64", OSVersion: "1\x1b[2J\nimage is verified", OSFeatures: []string{"\x1b]0;x\a"}}
	root := b.index("root", m)
	server := hostile.New(t)
	b.serveIn(server, "app", root, nil)
	err := b.pullFrom(b.ctx, b.verifyingPuller(2*time.Second), server.Host()+"/app:v1", imagestore.WithPlatforms(platforms.MustParse("linux/amd64")))
	if err == nil || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		t.Errorf("%q", err)
	}
	err = nil
	m.Platform = &ocispec.Platform{OS: "li\x1b[2J\nnux", Architecture: "amd\r64", Variant: strings.Repeat("v", 100)}
	root = b.index("root2", m)
	b.serveIn(server, "app", root, nil)
	err = b.pullFrom(b.ctx, b.verifyingPuller(2*time.Second), server.Host()+"/app:v1")
	if err == nil || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		t.Errorf("%q", err)
	}
}

// What only a copy's repository lists is no evidence for an image whose own repository was heard
// to its end, and lists nothing: it may have withdrawn it before this node came.
func TestEvidenceOfACopyAlone(t *testing.T) {
	b := newBench(t)
	b.remote = true
	root, _, _ := b.runnable("signed")
	server := hostile.New(t)
	b.serveIn(server, "app", root, nil)
	b.serveIn(server, "copy", root, map[digest.Digest][]ocispec.Descriptor{root.Digest: {b.signed("ours", root)}})
	if err := b.pullFrom(b.ctx, b.verifyingPuller(5*time.Second), server.Host()+"/copy:v1"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if err := b.pullFrom(b.ctx, b.verifyingPuller(5*time.Second), server.Host()+"/app:v1"); err == nil {
		t.Error("/app lists no signature, and the image is pulled from there")
	}
}

// A copy that still lists a signature does not make what its repository withdrew count again,
// and is itself verified by it.
func TestCopyTakesBackNoWithdrawal(t *testing.T) {
	b := newBench(t)
	b.remote = true
	root, _, _ := b.runnable("signed")
	listed := map[digest.Digest][]ocispec.Descriptor{root.Digest: {b.signed("ours", root)}}
	server := hostile.New(t)
	b.serveIn(server, "app", root, listed)
	b.serveIn(server, "copy", root, listed)
	app, other := server.Host()+"/app:v1", server.Host()+"/copy:v1"
	want := func(ref string, want verdict.Result) {
		t.Helper()
		image, err := b.images.Get(b.ctx, ref)
		if err != nil {
			t.Fatal(err)
		}
		v, err := b.verifyingPuller(5*time.Second).verifyStored(b.ctx, image, nil, true, false)
		if err != nil || v.Result != want {
			t.Errorf("stored, %s is %s, %v; want %s", ref, v.Result, err, want)
		}
	}
	pull := func(ref string) error { return b.pullFrom(b.ctx, b.verifyingPuller(5*time.Second), ref) }
	if err := pull(app); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	server.On("/v2/app/referrers/"+root.Digest.String(), hostile.Index())
	if err := pull(app); err == nil {
		t.Fatal("the signature was withdrawn, and the image is pulled")
	}
	want(app, verdict.Refused)
	if err := pull(other); err != nil {
		t.Fatal(err)
	}
	want(app, verdict.Refused)
	want(other, verdict.Verified)
	if err := pull(app); err == nil {
		t.Error("a copy was pulled, and so is the image whose signature was withdrawn")
	}
	b.serveIn(server, "app", root, listed)
	if err := pull(app); err != nil {
		t.Errorf("it is listed again: %v", err)
	}
	want(app, verdict.Verified)
}

// lateRepository has the evidence of a manifest that an index names late.
type lateRepository struct {
	gather.Repository
	found func(digest.Digest)
}

func (r lateRepository) ListEach(_ context.Context, subject digest.Digest, _ func([]ocispec.Descriptor)) (registry.Listing, error) {
	time.Sleep(200 * time.Microsecond)
	r.found(subject)
	return registry.Listing{Subject: subject, Status: labels.Absent}, nil
}

// The gather is idle, until the last index has been read: what that names must be waited for.
func TestIndexThatIsReadLateIsWaitedFor(t *testing.T) {
	b := newBench(t)
	rules, err := policy.New([]policy.Rule{enforceRule})
	if err != nil {
		t.Fatal(err)
	}
	selection, err := rules.Select("registry.example.com/app", nil)
	if err != nil {
		t.Fatal(err)
	}
	m, _, _ := b.runnable("signed")
	signature := b.signed("ours", m)
	parsed, err := artifact.Parse(b.blobs[signature.Digest], "")
	if err != nil {
		t.Fatal(err)
	}
	index := b.index("nested", m)
	j := b.namedJudge()
	refused := 0
	const times = 2000
	deadline := time.Now().Add(3 * time.Second)
	n := 0
	for ; n < times && time.Now().Before(deadline); n++ {
		q := &query{t: &Transferrer{config: Config{Store: b.store, Limits: gather.DefaultLimits}}, name: "registry.example.com/app:v1", selection: selection}
		q.verification = j.Open(b.ctx, judge.Config{Image: q.name, Repository: "registry.example.com/app", Selection: selection, Read: judge.FromStore(b.store), ReadManifest: judge.ManifestFromStore(b.store)})
		q.gather = gather.New(b.ctx, gather.Config{Name: q.name, Store: b.store, Selection: selection, Limits: gather.DefaultLimits, Cosign: gather.CosignNever, Examiner: q.verification,
			Repository: lateRepository{found: func(digest.Digest) { q.verification.Examine(b.ctx, m, signature, parsed) }}})
		p := &pull{query: q}
		q.verification.Index(index.Digest)
		var attested attestations
		go p.addChildren(index, []ocispec.Descriptor{m}, platforms.All, &attested)
		p.held.mu.Lock()
		err := p.await(b.ctx)
		p.held.mu.Unlock()
		if err != nil {
			refused++
		}
		q.gather.Close()
	}
	if refused > 0 {
		t.Errorf("%d of %d pulls of a signed image were refused", refused, n)
	}
}

// What is pulled from elsewhere must not be stored under a name whose rule verifies or denies it.
func TestImageStoredUnderAnotherName(t *testing.T) {
	b := newBench(t)
	b.remote = true
	root, _, _ := b.runnable("unsigned")
	server := hostile.New(t)
	b.serveIn(server, "evil", root, nil)
	rule := enforceRule
	rule.Repositories = []string{"**/prod/**"}
	for name, opts := range map[string][]imagestore.StoreOpt{
		server.Host() + "/prod/app:v1": nil,
		server.Host() + "/evil:v1":     {imagestore.WithExtraReference(server.Host() + "/prod/more:v1")},
	} {
		src, err := ociregistry.NewOCIRegistry(b.ctx, server.Host()+"/evil:v1")
		if err != nil {
			t.Fatal(err)
		}
		err = b.verifyingPuller(2*time.Second, rule).Transfer(b.ctx, src, imagestore.NewStore(name, opts...))
		for _, at := range []string{"/prod/app:v1", "/prod/more:v1"} {
			if _, got := b.images.Get(b.ctx, server.Host()+at); got == nil {
				t.Errorf("%s is stored, which nobody signed: %v", at, err)
			}
		}
	}
}

// Work of the daemon's must end soon after the timeout, however many indexes and manifests
// an image has: each manifest lists an attestation that is not wanted, so that tags are in doubt.
func TestDeepImageEndsByItsTimeout(t *testing.T) {
	b := newBench(t)
	b.remote = true
	const deep, wide = 300, 400
	var manifests []ocispec.Descriptor
	referrers := map[digest.Digest][]ocispec.Descriptor{}
	for i := range wide {
		m, _, _ := b.runnable(fmt.Sprint("manifest ", i))
		manifests = append(manifests, m)
		unwanted := m // of no consequence: it is not even there
		unwanted.Digest, unwanted.ArtifactType = digest.FromString(fmt.Sprint(i)), bundleType
		referrers[m.Digest] = []ocispec.Descriptor{unwanted}
	}
	at := b.index("deepest", manifests...)
	for i := range deep {
		at = b.index(fmt.Sprint("index ", i), at)
	}
	server := hostile.New(t)
	b.serveIn(server, "app", at, referrers)
	ctx, cancel := context.WithTimeoutCause(b.ctx, 60*time.Second, errors.New("it hangs"))
	defer cancel()
	began := time.Now()
	err := b.pullFrom(ctx, b.verifyingPuller(2*time.Second), server.Host()+"/app:v1")
	t.Logf("the pull took %s: %.300v", time.Since(began), err)
	last := time.Time{} // of the image's own manifests: from then on they wait
	for _, r := range server.Requests() {
		if strings.Contains(r.Path, "/manifests/sha256:") {
			last = r.Time
		}
	}
	if waited := time.Since(last); waited > 6*time.Second {
		t.Errorf("the pull went on for %s after its last manifest, with a timeout of 2 s", waited)
	}
}
