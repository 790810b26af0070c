package judge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// signer is a loader whose trusts are names, and evidence their name and the digest of its
// subject: "signed by ci: sha256:…".
type signer struct{}

func (signer) Kinds() []trust.Kind { return []trust.Kind{trust.Keys} }

func (signer) Load(_ trust.Config, files []trust.File) (trust.Verifier, error) {
	return name(strings.TrimSpace(string(files[0].Data))), nil
}

type name string

func (n name) Facts() trust.Facts { return trust.Facts{Identities: 1, Names: []string{string(n)}} }

func (n name) Verify(_ context.Context, e evidence.Evidence) (evidence.Verified, error) {
	switch {
	case e.Format != evidence.Bundle:
		return evidence.Verified{}, errdefs.ErrNotImplemented
	case string(e.Data) != signature(string(n), e.Subject.Digest):
		return evidence.Verified{}, fmt.Errorf("it is by another: %w", errdefs.ErrPermissionDenied)
	}
	return evidence.Verified{Kind: evidence.Signature, Identity: string(n)}, nil
}

func signature(by string, of digest.Digest) string { return "signed by " + by + ": " + of.String() }

// bench is a content store and a judge.
type bench struct {
	t     *testing.T
	ctx   context.Context
	store content.Store
	judge *judge.Judge
	file  string // of the trust release
	seen  counter
}

type counter struct {
	mu sync.Mutex
	n  map[evidence.Result]int
}

func (c *counter) Evidence(_ evidence.Format, r evidence.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[evidence.Result]int{}
	}
	c.n[r]++
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, ctx: namespaces.WithNamespace(t.Context(), "test"), store: storetest.New(t).ContentStore(), file: filepath.Join(t.TempDir(), "release")}
	b.trusts("ours")
	trusts, err := trust.Open(map[string]trust.Config{"release": {Keys: []string{b.file}}}, signer{})
	if err != nil {
		t.Fatal(err)
	}
	b.judge = judge.New(trusts, &b.seen)
	return b
}

// trusts has the trust release be of the name from now on.
func (b *bench) trusts(name string) {
	b.t.Helper()
	if err := os.WriteFile(b.file+".new", []byte(name), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(b.file+".new", b.file); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) put(mediaType string, data []byte) ocispec.Descriptor {
	b.t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(b.ctx, b.store, desc.Digest.String(), strings.NewReader(string(data)), desc); err != nil {
		b.t.Fatal(err)
	}
	return desc
}

// referrer stores one with layers of a type, and returns its manifest.
func (b *bench) referrer(subject ocispec.Descriptor, layerType string, layers ...string) (ocispec.Descriptor, *artifact.Manifest) {
	b.t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: layerType, Config: b.empty(), Subject: &subject}
	for _, l := range layers {
		m.Layers = append(m.Layers, b.put(layerType, []byte(l)))
	}
	data, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	parsed, err := artifact.Parse(data, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return b.put(ocispec.MediaTypeImageManifest, data), parsed
}

func (b *bench) empty() ocispec.Descriptor { return b.put(ocispec.MediaTypeEmptyJSON, []byte("{}")) }

func (b *bench) image(text string) ocispec.Descriptor {
	return b.put(ocispec.MediaTypeImageManifest, []byte(`{"layers":[],"x":"`+text+`"}`))
}

func (b *bench) open(rule policy.Rule) *judge.Case {
	b.t.Helper()
	rule.Repositories, rule.Verify = []string{"**"}, policy.VerifyEnforce
	p, err := policy.New([]policy.Rule{rule})
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := p.Select("registry.example.com/app", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.judge.Open(b.ctx, judge.Config{Image: "registry.example.com/app:v1", Repository: "registry.example.com/app", Selection: s, Read: judge.FromStore(b.store), ReadManifest: judge.ManifestFromStore(b.store)})
}

var signed = policy.Rule{Signed: []policy.Signed{{By: []string{"release"}}}}

// The case holds as soon as the evidence that is asked for has come in, and tells who waits.
func TestCaseHoldsEarly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	index, amd64 := b.image("index"), b.image("amd64")
	c := b.open(signed)
	c.Index(index.Digest)
	if c.Complete() || c.Holds() {
		t.Error("the index has not been read, and the case is complete")
	}
	c.Manifest(amd64.Digest, "linux/amd64", index.Digest)
	c.IndexRead(index.Digest)
	if !c.Complete() || c.Holds() {
		t.Error("there is no evidence, and the case holds")
	}
	changed := c.Changed()
	sig, m := b.referrer(index, artifact.TypeBundle, signature("ours", index.Digest))
	c.Examine(b.ctx, index, sig, m)
	select {
	case <-changed:
	default:
		t.Error("who waits is not told")
	}
	if !c.Holds() || !c.Meets(evidence.Signature, amd64.Digest) {
		t.Errorf("signed, and not verified: %+v", c.Verdict(nil))
	}
	c.Examine(b.ctx, index, sig, m) // it was met in another way, too
	if n := len(c.Verdict(nil).Evidence); n != 1 {
		t.Errorf("one signature is %d pieces", n)
	}
}

// What is not worth anything says why.
func TestEvidenceThatDoesNotCount(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	image := b.image("image")
	gone := digest.FromString("gone")
	annotated, attests := b.referrer(image, artifact.TypeBundle, "attests")
	attests.Annotations = map[string]string{artifact.AnnotationPredicate: "https://spdx.dev/Document"}
	large := &artifact.Manifest{Blobs: []ocispec.Descriptor{{MediaType: artifact.TypeBundle, Digest: gone, Size: evidence.MaxSize + 1}}}
	missing := &artifact.Manifest{Blobs: []ocispec.Descriptor{{MediaType: artifact.TypeBundle, Digest: gone, Size: 1}}}
	for name, tc := range map[string]struct {
		give   func() (ocispec.Descriptor, *artifact.Manifest)
		result evidence.Result
		says   string
	}{
		"a stranger's": {func() (ocispec.Descriptor, *artifact.Manifest) {
			return b.referrer(image, artifact.TypeBundle, signature("theirs", image.Digest))
		}, evidence.ResultStranger, "trust release: it is by another"},
		"another image's": {func() (ocispec.Descriptor, *artifact.Manifest) {
			return b.referrer(image, artifact.TypeBundle, signature("ours", gone))
		}, evidence.ResultStranger, "it is by another"},
		"of another format": {func() (ocispec.Descriptor, *artifact.Manifest) {
			return b.referrer(image, "application/jose+json", signature("ours", image.Digest))
		}, evidence.ResultStranger, "no trust that the rule names (release) is for evidence of the format notation"},
		"too large":          {func() (ocispec.Descriptor, *artifact.Manifest) { return image, large }, evidence.ResultUnread, "evidence over 6291456 bytes is not read"},
		"not there":          {func() (ocispec.Descriptor, *artifact.Manifest) { return image, missing }, evidence.ResultUnread, "it cannot be read: "},
		"said to be an SBOM": {func() (ocispec.Descriptor, *artifact.Manifest) { return annotated, attests }, evidence.ResultUnread, "https://spdx.dev/Document"},
		"a statement that is no": {func() (ocispec.Descriptor, *artifact.Manifest) {
			return b.referrer(image, "application/vnd.in-toto+json", "{}")
		}, evidence.ResultInvalid, "no in-toto statement"},
	} {
		rule := signed
		rule.Attested = []policy.Attested{{PredicateType: "https://slsa.dev/provenance/v1", By: []string{"release"}}}
		c := b.open(rule)
		c.Manifest(image.Digest, "")
		before := b.seen.n[tc.result]
		desc, m := tc.give()
		c.Examine(b.ctx, image, desc, m)
		v := c.Verdict(nil)
		if v.Result != verdict.Refused || len(v.Evidence) != 1 || v.Evidence[0].Counted || !strings.Contains(strings.Join(v.Evidence[0].Reasons, "; "), tc.says) {
			t.Errorf("%s: %s, %+v, want the reason %q", name, v.Result, v.Evidence, tc.says)
		}
		if b.seen.n[tc.result] != before+1 {
			t.Errorf("%s is not counted as %s: %v", name, tc.result, b.seen.n)
		}
	}
}

// More evidence than is examined is refused with the number, unless what came suffices.
func TestMassesOfEvidence(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	image := b.image("image")
	for _, first := range []bool{true, false} {
		c := b.open(signed)
		c.Manifest(image.Digest, "")
		ours, m := b.referrer(image, artifact.TypeBundle, signature("ours", image.Digest))
		if first {
			c.Examine(b.ctx, image, ours, m)
		}
		for i := range 20 {
			desc, many := b.referrer(image, artifact.TypeBundle, slices.Repeat([]string{fmt.Sprint("decoy ", i)}, evidence.MaxPerReferrer+1)...)
			c.Examine(b.ctx, image, desc, many)
		}
		if !first {
			c.Examine(b.ctx, image, ours, m)
		}
		v := c.Verdict(nil)
		if first != (v.Result == verdict.Verified) || len(v.Evidence) > 1024 {
			t.Errorf("ours first: %v: %s with %d pieces", first, v.Result, len(v.Evidence))
		}
		if !first && !strings.Contains(v.Reason, "more than 1024 pieces or 64 MiB of evidence") {
			t.Errorf("the reason is %q", v.Reason)
		}
	}
}

// A trust that changes while evidence comes in decides over all of it in the end.
func TestRefresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	image := b.image("image")
	c := b.open(signed)
	c.Manifest(image.Digest, "")
	desc, m := b.referrer(image, artifact.TypeBundle, signature("ours", image.Digest))
	c.Examine(b.ctx, image, desc, m)
	c.Refresh(b.ctx)
	if !c.Holds() {
		t.Fatal("nothing has changed, and the case holds no more")
	}
	b.trusts("theirs")
	if !c.Holds() {
		t.Error("the case is judged by other trusts before it is refreshed")
	}
	if c.Refresh(b.ctx); c.Holds() {
		t.Error("the key is trusted no more, and the case holds")
	}
	b.trusts("ours")
	if c.Refresh(b.ctx); !c.Holds() || len(c.Verdict(nil).Evidence) != 1 {
		t.Errorf("the key is trusted again: %+v", c.Verdict(nil))
	}
}

// Of what is tied in the store, what the registry withdrew counts nowhere, and labels prove
// nothing.
func TestAddStored(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	labeler := stored.NewLabeler(b.store)
	for name, tc := range map[string]struct {
		by       string
		unlisted bool
		keep     bool
		want     verdict.Result
		says     string
	}{
		"tied":                   {"ours", false, true, verdict.Verified, "counts for a signature by release"},
		"by a stranger":          {"theirs", false, true, verdict.Refused, "it is by another"},
		"withdrawn":              {"ours", true, true, verdict.Refused, "it was withdrawn"},
		"withdrawn in this pull": {"ours", false, false, verdict.Refused, ""},
	} {
		image := b.image(name)
		desc, _ := b.referrer(image, artifact.TypeBundle, signature(tc.by, image.Digest))
		if err := labeler.Tie(b.ctx, image.Digest, desc.Digest); err != nil {
			t.Fatal(err)
		}
		more := map[string]string{"transfer-referrers/verdict": "verified", "transfer-referrers/status": "present"}
		if tc.unlisted {
			more[labels.Unlisted(desc.Digest)] = time.Unix(1e9, 0).UTC().Format(time.RFC3339)
		}
		if err := labeler.Add(b.ctx, image.Digest, more); err != nil {
			t.Fatal(err)
		}
		c := b.open(signed)
		c.Manifest(image.Digest, "")
		if err := c.AddStored(b.ctx, b.store, image, func(_, referrer digest.Digest) bool { return tc.keep && referrer == desc.Digest }); err != nil {
			t.Fatal(err)
		}
		v := c.Verdict(nil)
		if v.Result != tc.want || tc.says != "" && !strings.Contains(strings.Join(v.Evidence[0].Reasons, "; "), tc.says) {
			t.Errorf("%s: %s, %+v", name, v.Result, v.Evidence)
		}
	}
	if err := b.open(signed).AddStored(b.ctx, b.store, ocispec.Descriptor{Digest: digest.FromString("none")}, nil); !errdefs.IsNotFound(err) {
		t.Errorf("a subject that is not stored: %v", err)
	}
}

// A statement that is not signed counts for who signed the manifest that holds it, tied one
// level down.
func TestStatementThatIsVouchedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	labeler := stored.NewLabeler(b.store)
	rule := policy.Rule{Attested: []policy.Attested{{PredicateType: "https://slsa.dev/provenance/v1", By: []string{"release"}}}}
	for _, by := range []string{"ours", "theirs", ""} {
		image := b.image("attested, by " + by)
		statement, _ := b.referrer(image, "application/vnd.in-toto+json", fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":%q}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}`, image.Digest.Encoded()))
		if err := labeler.Tie(b.ctx, image.Digest, statement.Digest); err != nil {
			t.Fatal(err)
		}
		if by != "" {
			sig, _ := b.referrer(statement, artifact.TypeBundle, signature(by, statement.Digest))
			if err := labeler.Tie(b.ctx, statement.Digest, sig.Digest); err != nil {
				t.Fatal(err)
			}
		}
		c := b.open(rule)
		c.Manifest(image.Digest, "")
		if err := c.AddStored(b.ctx, b.store, image, nil); err != nil {
			t.Fatal(err)
		}
		if c.Holds() != (by == "ours") {
			t.Errorf("signed by %q: %+v", by, c.Verdict(nil))
		}
	}
}

// Who examines when the pull is cancelled ends.
func TestExamineEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	image := b.image("image")
	c := b.open(signed)
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	desc, m := b.referrer(image, artifact.TypeBundle, signature("ours", image.Digest))
	c.Examine(ctx, image, desc, m)
	if c.Holds() {
		t.Error("evidence was examined after the end of the pull")
	}
}

// Many referrers come in at the same time.
func TestCaseIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	image := b.image("image")
	c := b.open(signed)
	c.Manifest(image.Digest, "")
	var wg sync.WaitGroup
	for i := range 8 {
		desc, m := b.referrer(image, artifact.TypeBundle, signature([]string{"ours", "theirs"}[i%2], image.Digest), fmt.Sprint(i))
		wg.Go(func() {
			c.Examine(b.ctx, image, desc, m)
			c.Holds()
			c.Refresh(b.ctx)
		})
	}
	wg.Wait()
	if v := c.Verdict(nil); v.Result != verdict.Verified || len(v.Evidence) != 16 {
		t.Errorf("%s with %d pieces", v.Result, len(v.Evidence))
	}
}
