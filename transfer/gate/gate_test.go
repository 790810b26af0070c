package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// signer is a loader whose trusts are names, and evidence their name and the digest of its
// subject: "signed by ci: sha256:…".
type signer struct{ slow time.Duration }

func (signer) Kinds() []trust.Kind { return []trust.Kind{trust.Keys} }

func (s signer) Load(_ trust.Config, files []trust.File) (trust.Verifier, error) {
	return &keyOfName{strings.TrimSpace(string(files[0].Data)), s.slow}, nil
}

type keyOfName struct {
	name string
	slow time.Duration
}

func (k *keyOfName) Facts() trust.Facts { return trust.Facts{Identities: 1, Names: []string{k.name}} }

func (k *keyOfName) Verify(_ context.Context, e evidence.Evidence) (evidence.Verified, error) {
	time.Sleep(k.slow)
	if string(e.Data) != signature(k.name, e.Subject.Digest) {
		return evidence.Verified{}, fmt.Errorf("it is by another: %w", errdefs.ErrPermissionDenied)
	}
	return evidence.Verified{Kind: evidence.Signature, Identity: k.name}, nil
}

func signature(by string, of digest.Digest) string { return "signed by " + by + ": " + of.String() }

// node is a store with images, and a gate.
type node struct {
	t     *testing.T
	ctx   context.Context
	db    *metadata.DB
	store content.Store
	image images.Store
	file  string // of the trust release
	gate  *Gate
	counter
}

// counter counts what was examined, and verdicts by "result mode".
type counter struct {
	mu       sync.Mutex
	examined int
	verdicts map[string]int
}

func (c *counter) Evidence(evidence.Format, evidence.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.examined++
}

func (c *counter) Creation(result verdict.Result, mode policy.Verify, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.verdicts == nil {
		c.verdicts = map[string]int{}
	}
	c.verdicts[string(result)+" "+string(mode)]++
}

func (c *counter) GateConnected(bool) {}

func (c *counter) looked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.examined
}

// signed is a rule that a trust must have signed the images of a repository.
func signed(repository string, verify policy.Verify) policy.Rule {
	return policy.Rule{Repositories: []string{repository}, Verify: verify, Signed: []policy.Signed{{By: []string{"release"}}}}
}

func newNode(t *testing.T, mode Mode, slow time.Duration, rules ...policy.Rule) *node {
	t.Helper()
	n := &node{t: t, ctx: namespaces.WithNamespace(t.Context(), "k8s.io"), db: storetest.New(t), file: filepath.Join(t.TempDir(), "release")}
	n.store, n.image = n.db.ContentStore(), metadata.NewImageStore(n.db)
	n.trusts("ours")
	trusts, err := trust.Open(map[string]trust.Config{"release": {Keys: []string{n.file}}}, signer{slow})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.New(rules)
	if err != nil {
		t.Fatal(err)
	}
	n.gate = New(Config{Mode: mode, Policy: p, Judge: judge.New(trusts, &n.counter), Images: n.image, Store: n.store, Observer: &n.counter})
	return n
}

// trusts has the trust release be of the name from now on.
func (n *node) trusts(name string) {
	n.t.Helper()
	if err := os.WriteFile(n.file+".new", []byte(name), 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(n.file+".new", n.file); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) put(mediaType string, data []byte) ocispec.Descriptor {
	n.t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	// Only what a lease or a label holds is kept, and no collector runs here.
	if err := content.WriteBlob(n.ctx, n.store, desc.Digest.String(), strings.NewReader(string(data)), desc); err != nil && !errdefs.IsAlreadyExists(err) {
		n.t.Fatal(err)
	}
	return desc
}

func (n *node) putJSON(mediaType string, v any) ocispec.Descriptor {
	n.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		n.t.Fatal(err)
	}
	return n.put(mediaType, data)
}

// manifest stores one of an image with the config. Others of the same config differ by layer.
func (n *node) manifest(config, layer string) ocispec.Descriptor {
	c := n.put(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","author":"`+config+`"}`))
	l := n.put(ocispec.MediaTypeImageLayer, []byte(layer))
	desc := n.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: c, Layers: []ocispec.Descriptor{l}})
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	return desc
}

// config is that which a manifest of the name has.
func config(name string) digest.Digest {
	return digest.FromString(`{"architecture":"amd64","os":"linux","author":"` + name + `"}`)
}

func (n *node) index(manifests ...ocispec.Descriptor) ocispec.Descriptor {
	return n.putJSON(ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
}

// tag gives an image names.
func (n *node) tag(target ocispec.Descriptor, names ...string) {
	n.t.Helper()
	target.Platform = nil
	for _, name := range names {
		if _, err := n.image.Create(n.ctx, images.Image{Name: name, Target: target}); err != nil {
			n.t.Fatal(err)
		}
	}
}

// sign stores a signature of a subject, and ties it.
func (n *node) sign(by string, subject ocispec.Descriptor) ocispec.Descriptor {
	n.t.Helper()
	about := ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	desc := n.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: bundleType,
		Config: n.put(ocispec.MediaTypeEmptyJSON, []byte("{}")), Subject: &about,
		Layers: []ocispec.Descriptor{n.put(bundleType, []byte(signature(by, subject.Digest)))},
	})
	n.label(subject, func(l map[string]string) { maps.Copy(l, labels.TieLabels(l, desc.Digest)) })
	return desc
}

// withdraw marks a signature as no longer listed.
func (n *node) withdraw(subject, referrer ocispec.Descriptor) {
	n.label(subject, func(l map[string]string) { l[labels.Unlisted(referrer.Digest)] = time.Now().UTC().Format(time.RFC3339) })
}

func (n *node) label(of ocispec.Descriptor, change func(map[string]string)) {
	n.t.Helper()
	info, err := n.store.Info(n.ctx, of.Digest)
	if err != nil {
		n.t.Fatal(err)
	}
	if info.Labels == nil {
		info.Labels = map[string]string{}
	}
	change(info.Labels)
	if _, err := n.store.Update(n.ctx, info, "labels"); err != nil {
		n.t.Fatal(err)
	}
}

// want judges a container of an image, which must be refused with the texts, or not where
// there are none.
func (n *node) want(image Image, says ...string) {
	n.t.Helper()
	err := n.gate.Judge(n.ctx, image)
	switch {
	case len(says) == 0 && err != nil:
		n.t.Errorf("%s: %v", image, err)
	case len(says) == 0:
		return
	case err == nil:
		n.t.Errorf("%s is not refused", image)
		return
	case !strings.HasPrefix(err.Error(), verdict.Prefix):
		n.t.Errorf("the refusal begins otherwise: %v", err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			n.t.Errorf("%s: %q lacks %q", image, err, s)
		}
	}
	if len(err.Error()) > maxText {
		n.t.Errorf("the refusal has %d bytes", len(err.Error()))
	}
}

const (
	ruledName   = "registry.example.com/prod/app:v1"
	unruledName = "registry.example.com/other/app:v1"
	prod        = "registry.example.com/prod/**"
)

// An image is judged by what is stored when its container is created; one without a rule is
// not.
func TestContainersAreJudged(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
	good, bad := n.manifest("good", "good"), n.manifest("bad", "bad")
	n.sign("ours", good)
	n.sign("theirs", bad)
	n.tag(good, ruledName)
	n.tag(bad, "registry.example.com/prod/bad:v1")
	n.tag(n.manifest("unruled", "unruled"), unruledName)
	n.want(Image{ruledName, good.Digest, config("good")})
	n.want(Image{"registry.example.com/prod/bad:v1", bad.Digest, config("bad")}, "image registry.example.com/prod/bad:v1 is refused: rule 1", "it is by another")
	n.want(Image{unruledName, n.manifest("unruled", "unruled").Digest, config("unruled")})
	want := map[string]int{"verified enforce": 1, "refused enforce": 1}
	if !maps.Equal(n.verdicts, want) {
		t.Errorf("counted %v, want %v", n.verdicts, want)
	}
}

// Of all names of an image the strictest rule holds, and the text says which: names of the same
// index, of a manifest in an index, and of another manifest with the same config.
func TestStrictestOfAllNames(t *testing.T) {
	t.Parallel()
	deny := policy.Rule{Repositories: []string{"registry.example.com/denied/**"}, Deny: true}
	for name, build := range map[string]func(n *node) (named, run ocispec.Descriptor){
		"the same manifest": func(n *node) (named, run ocispec.Descriptor) { m := n.manifest("app", "a"); return m, m },
		"an index of it":    func(n *node) (named, run ocispec.Descriptor) { m := n.manifest("app", "a"); return n.index(m), m },
		"a manifest of the index": func(n *node) (named, run ocispec.Descriptor) {
			m := n.manifest("app", "a")
			return m, n.index(m)
		},
		"another manifest of the config": func(n *node) (named, run ocispec.Descriptor) {
			return n.manifest("app", "a"), n.manifest("app", "b")
		},
		"a nested index": func(n *node) (named, run ocispec.Descriptor) {
			m := n.manifest("app", "a")
			return n.index(n.index(m)), n.index(m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce), deny)
			strict, run := build(n)
			n.tag(run, unruledName)
			image := Image{unruledName, run.Digest, config("app")}
			n.want(image)
			n.tag(strict, ruledName)
			n.want(image, "image "+ruledName+" is refused: rule 1", "the container names it "+unruledName)
			n.sign("ours", strict)
			n.want(image)
			n.tag(strict, "registry.example.com/denied/app:v1")
			n.want(image, "image registry.example.com/denied/app:v1 is refused: rule 2", "denies every image")
		})
	}
}

// What runs is the config: evidence of any image that holds it counts, of others none.
func TestEvidenceIsOfTheConfigThatRuns(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
	old, now := n.manifest("app", "old"), n.manifest("app", "now")
	n.tag(old, ruledName)
	n.tag(now, "registry.example.com/prod/app:v2")
	n.sign("ours", now)
	n.want(Image{ruledName, old.Digest, config("app")})

	// An index holds another platform, which is signed.
	run, other := n.manifest("run", "run"), n.manifest("other", "other")
	n.sign("ours", other)
	index := n.index(other, run)
	n.tag(index, "registry.example.com/prod/index:v1")
	n.want(Image{"registry.example.com/prod/index:v1", index.Digest, config("run")}, "needs a signature by release of manifest "+verdict.Short(run.Digest))
	n.want(Image{"registry.example.com/prod/index:v1", index.Digest, config("other")})
}

// The kubelet names an image by its config's digest. Only a rule for everything governs one
// that is in no repository.
func TestImagesWithoutAName(t *testing.T) {
	t.Parallel()
	everything := policy.Rule{Repositories: []string{"**"}, Deny: true}
	for name, tc := range map[string]struct {
		rules []policy.Rule
		says  []string
	}{
		"a rule for others":     {[]policy.Rule{signed(prod, policy.VerifyEnforce)}, nil},
		"a rule for everything": {[]policy.Rule{signed(prod, policy.VerifyEnforce), everything}, []string{"rule 2", "denies every image"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, Enforce, 0, tc.rules...)
			m := n.manifest("app", "a")
			n.want(Image{"", m.Digest, config("app")}, tc.says...)
			n.tag(m, config("app").String()) // as CRI does
			for _, by := range []string{"", config("app").String()} {
				n.want(Image{by, m.Digest, config("app")}, tc.says...)
			}
			n.tag(m, ruledName) // from now on it is in a repository
			n.want(Image{config("app").String(), m.Digest, config("app")}, "image "+ruledName+" is refused: rule 1")
			n.sign("ours", m)
			n.want(Image{config("app").String(), m.Digest, config("app")})
		})
	}
}

// A name that the runtime gives is judged even if its record is gone, or names another image.
func TestNamesThatRecordsDoNotHave(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
	m, other := n.manifest("app", "a"), n.manifest("other", "b")
	n.sign("ours", other)
	n.want(Image{ruledName, m.Digest, config("app")}, "image "+ruledName+" is refused")
	n.tag(other, ruledName)
	n.want(Image{ruledName, m.Digest, config("app")}, "image "+ruledName+" is refused")
	n.want(Image{ruledName, other.Digest, config("other")})
}

// What cannot be judged is refused where a rule enforces, and let go with a warning else.
func TestImagesThatCannotBeJudged(t *testing.T) {
	t.Parallel()
	missing := digest.FromString("missing")
	for _, image := range []Image{{}, {ruledName, missing, missing}, {ruledName, "sha256:short", ""}, {"", "", missing}} {
		n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
		n.want(image, "is refused: it could not be judged: ")
		warns := newNode(t, Enforce, 0, signed(prod, policy.VerifyWarn))
		warns.want(image)
		if warns.verdicts[" warn"] != 1 {
			t.Errorf("counted %v", warns.verdicts)
		}
		newNode(t, Off, 0, signed(prod, policy.VerifyEnforce)).want(image)
		newNode(t, Enforce, 0, policy.Rule{Repositories: []string{"**"}}).want(image)
	}
}

// An image that no rule is for is not refused for what cannot be read of it.
func TestUnruledImagesNeedNotBeRead(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 0, signed(prod, policy.VerifyEnforce))
	missing := digest.FromString("missing")
	n.want(Image{unruledName, missing, missing})
	n.want(Image{"", missing, missing})
	n.tag(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: missing, Size: 7}, unruledName)
	n.want(Image{unruledName, missing, missing})
	n.tag(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: missing, Size: 7}, ruledName)
	n.want(Image{unruledName, missing, missing}, "could not be judged")
}

// The modes of the gate and of the rule: the milder holds.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		gate    Mode
		rule    policy.Verify
		refuses bool
		counted string
	}{
		{Enforce, policy.VerifyEnforce, true, "refused enforce"},
		{Enforce, policy.VerifyWarn, false, "refused warn"},
		{Warn, policy.VerifyEnforce, false, "refused warn"},
		{Off, policy.VerifyEnforce, false, ""},
	} {
		n := newNode(t, tc.gate, 0, signed(prod, tc.rule))
		m := n.manifest("app", "a")
		n.tag(m, ruledName)
		if err := n.gate.Judge(n.ctx, Image{ruledName, m.Digest, config("app")}); (err != nil) != tc.refuses {
			t.Errorf("gate %s, rule %s: %v", tc.gate, tc.rule, err)
		}
		if tc.counted != "" && n.verdicts[tc.counted] != 1 {
			t.Errorf("gate %s, rule %s: counted %v", tc.gate, tc.rule, n.verdicts)
		}
		if tc.counted == "" && (n.gate.Judges() || len(n.verdicts) > 0) {
			t.Errorf("gate %s judges: %v", tc.gate, n.verdicts)
		}
	}
}

// A verdict that takes too long refuses, and is there when the container is tried again. NRI's
// own limit may be shorter.
func TestVerdictsThatTakeTooLong(t *testing.T) {
	t.Parallel()
	n := newNode(t, Enforce, 1500*time.Millisecond, signed(prod, policy.VerifyEnforce))
	m := n.manifest("app", "a")
	n.sign("ours", m)
	n.tag(m, ruledName)
	image := Image{ruledName, m.Digest, config("app")}
	start := time.Now()
	n.want(image, "could not be examined within 1s")
	if took := time.Since(start); took < MaxWait || took > MaxWait+300*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	time.Sleep(time.Second)
	start = time.Now()
	n.want(image)
	if took := time.Since(start); took > MaxWait/2 {
		t.Errorf("the verdict was not remembered: it took %s", took)
	}

	slow := n.manifest("slow", "slow")
	n.sign("ours", slow)
	n.tag(slow, "registry.example.com/prod/slow:v1")
	ctx, cancel := context.WithTimeout(n.ctx, 200*time.Millisecond)
	defer cancel()
	start = time.Now()
	if err := n.gate.Judge(ctx, Image{"registry.example.com/prod/slow:v1", slow.Digest, config("slow")}); err == nil || time.Since(start) > 200*time.Millisecond {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

// A refusal stays short enough for an event of Kubernetes, whatever names are.
func TestRefusalsAreShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 4000)
	for _, v := range []named{{Name: long, Reason: long}, {Name: "short", Reason: long}} {
		for _, image := range []Image{{Name: long}, {Name: v.Name}, {Name: "other"}} {
			if got := text(image, v); len(got) > maxText || !strings.HasPrefix(got, verdict.Prefix) {
				t.Errorf("%d bytes: %s", len(got), got)
			}
		}
	}
}
