package judge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// Evidence counts on the nearest indexes above a manifest: containerd's dispatch reads 10,000
// descriptors of an image, as many indexes, one in the other, and each question goes up them.
func TestEvidenceFarAboveDoesNotCount(t *testing.T) {
	b := newBench(t)
	image := b.image("manifest")
	for far, want := range map[int]bool{1: true, 64: true, 65: false, 999: false} {
		c := b.open(signed)
		indexes := []digest.Digest{image.Digest}
		for i := range 1000 {
			indexes = append(indexes, digest.FromString(fmt.Sprint("index ", far, i)))
			c.Index(indexes[i+1])
			if i == 0 {
				c.Manifest(image.Digest, "", indexes[1])
			} else {
				c.Index(indexes[i], indexes[i+1])
			}
		}
		subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: indexes[far], Size: 1}
		desc, m := b.referrer(subject, artifact.TypeBundle, signature("ours", subject.Digest))
		c.Examine(b.ctx, subject, desc, m)
		if c.Holds() != want {
			t.Errorf("a signature %d indexes above counts: %v", far, !want)
		}
	}
}

// A pull that was stopped has read nothing of what it examined after: what is stored counts then.
func TestWhatWasExaminedInVainIsExaminedAgain(t *testing.T) {
	b := newBench(t)
	subject := b.image("app")
	desc, m := b.referrer(subject, bundle, signature("ours", subject.Digest))
	c := b.open(policy.Rule{Signed: []policy.Signed{{By: []string{"release"}}}})
	c.Manifest(subject.Digest, "")
	stopped, stop := context.WithCancel(b.ctx)
	stop()
	c.Examine(stopped, subject, desc, m) // as gather does, after the timeout
	info := content.Info{Digest: subject.Digest, Labels: map[string]string{}}
	for k, v := range labels.TieLabels(nil, desc.Digest) {
		info.Labels[k] = v
	}
	var fields []string
	for k := range info.Labels {
		fields = append(fields, "labels."+k)
	}
	if _, err := b.store.Update(b.ctx, info, fields...); err != nil {
		t.Fatal(err)
	}
	if err := c.AddStored(b.ctx, b.store, subject, nil); err != nil {
		t.Fatal(err)
	}
	if !c.Holds() {
		t.Errorf("the stored signature does not count: %+v", c.Verdict(nil).Evidence)
	}
}

const bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"

// An explanation reads evidence from the registry: one that is slow must keep no pull waiting.
func TestSlowRegistryStarvesNoOther(t *testing.T) {
	b := newBench(t)
	rule := policy.Rule{Repositories: []string{"**"}, Verify: policy.VerifyEnforce, Signed: []policy.Signed{{By: []string{"release"}}}}
	p, err := policy.New([]policy.Rule{rule})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select("evil.example.com/app", nil)
	if err != nil {
		t.Fatal(err)
	}
	reading := make(chan struct{})
	slow := b.judge.Open(b.ctx, judge.Config{Image: "evil.example.com/app:v1", Repository: "evil.example.com/app", Selection: s, ReadManifest: judge.ManifestFromStore(b.store), Far: true,
		Read: func(ctx context.Context, _ ocispec.Descriptor) ([]byte, error) {
			close(reading)
			<-ctx.Done()
			return nil, ctx.Err()
		}})
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	evil := b.image("evil")
	m, err := artifact.Parse(mustJSON(t, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Subject: &evil, Config: b.empty(),
		Layers: []ocispec.Descriptor{{MediaType: bundle, Digest: digest.FromString("large"), Size: 6 << 20}}}), "")
	if err != nil {
		t.Fatal(err)
	}
	go slow.Examine(ctx, evil, b.image("referrer"), m)
	<-reading

	subject := b.image("app")
	desc, good := b.referrer(subject, bundle, signature("ours", subject.Digest))
	c := b.open(policy.Rule{Signed: []policy.Signed{{By: []string{"release"}}}})
	c.Manifest(subject.Digest, "")
	short, end := context.WithTimeout(b.ctx, time.Second)
	defer end()
	c.Examine(short, subject, desc, good)
	if !c.Holds() {
		t.Errorf("another image's slow registry keeps this one from being verified: %+v", c.Verdict(nil).Evidence)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	var buffer bytes.Buffer
	if err := json.NewEncoder(&buffer).Encode(v); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// A manifest may name one blob many times: it is examined once.
func TestBlobIsExaminedOnce(t *testing.T) {
	b := newBench(t)
	subject := b.image("app")
	var layers []string
	for range 64 {
		layers = append(layers, signature("stranger", subject.Digest))
	}
	desc, m := b.referrer(subject, bundle, layers...)
	c := b.open(policy.Rule{Signed: []policy.Signed{{By: []string{"release"}}}})
	c.Manifest(subject.Digest, "")
	c.Examine(b.ctx, subject, desc, m)
	n := 0
	for _, of := range b.seen.n {
		n += of
	}
	if n > 1 {
		t.Errorf("the same blob was read and verified %d times", n)
	}
}

// What an unsigned statement says must not reach a terminal as it is, nor end the first line.
func TestStatementInTheReason(t *testing.T) {
	b := newBench(t)
	subject := b.image("app")
	const statement = "application/vnd.in-toto+json"
	text := `{"_type":"https://in-toto.io/Statement/v1","predicateType":"p","subject":[{"digest":{"sha256":"` + subject.Digest.Encoded() + `"}}],"predicate":{"b":{` + "\n\r\t" + `"x":"` + "\u009b2J\u202e\x7f" + `"}}}`
	desc, m := b.referrer(subject, statement, text)
	c := b.open(policy.Rule{Attested: []policy.Attested{{PredicateType: "p", By: []string{"release"}, Where: []policy.Condition{{Path: "/b", Equals: "x"}}}}})
	c.Manifest(subject.Digest, "")
	c.Examine(b.ctx, subject, desc, m)
	reason := c.Verdict(nil).Reason
	for _, r := range reason {
		if !unicode.IsPrint(r) {
			t.Fatalf("%q in %q", r, reason)
		}
	}
}

// cosign adds a layer at the end for each signature: the newest must count, as where a key was
// rotated after many.
func TestNewestOfManySignatures(t *testing.T) {
	b := newBench(t)
	subject := b.image("app")
	var layers []string
	for i := range 64 {
		layers = append(layers, fmt.Sprint("of the old key ", i))
	}
	desc, m := b.referrer(subject, bundle, append(layers, signature("ours", subject.Digest))...)
	c := b.open(policy.Rule{Signed: []policy.Signed{{By: []string{"release"}}}})
	c.Manifest(subject.Digest, "")
	c.Examine(b.ctx, subject, desc, m)
	if !c.Holds() {
		t.Errorf("refused: %s", c.Verdict(nil).Reason)
	}
}

// readsType is a verifier that reads a blob by the type that its layer says.
type readsType struct{ name }

func (v readsType) Verify(ctx context.Context, e evidence.Evidence) (evidence.Verified, error) {
	if e.MediaType != "application/jose+json" {
		return evidence.Verified{}, fmt.Errorf("it is no JWS: %w", errdefs.ErrInvalidArgument)
	}
	e.Format = evidence.Bundle
	return v.name.Verify(ctx, e)
}

type typedSigner struct{ signer }

func (typedSigner) Load(_ trust.Config, files []trust.File) (trust.Verifier, error) {
	return readsType{name(strings.TrimSpace(string(files[0].Data)))}, nil
}

// Who gives the blob of a signature another type hides it in no order.
func TestBlobByAnotherTypeHidesNothing(t *testing.T) {
	b := newBench(t)
	trusts, err := trust.Open(map[string]trust.Config{"release": {Keys: []string{b.file}}}, typedSigner{})
	if err != nil {
		t.Fatal(err)
	}
	b.judge = judge.New(trusts, nil)
	image := b.image("app")
	for _, order := range [][]string{{"application/jose+json", "application/cose"}, {"application/cose", "application/jose+json"}} {
		c := b.open(signed)
		c.Manifest(image.Digest, "")
		for _, mediaType := range order {
			desc, m := b.referrer(image, mediaType, signature("ours", image.Digest))
			c.Examine(b.ctx, image, desc, m)
		}
		if !c.Holds() {
			t.Errorf("%q: %s", order, c.Verdict(nil).Reason)
		}
	}
}

// Evidence that could not be read is read when it is met again.
func TestEvidenceThatCouldNotBeRead(t *testing.T) {
	b := newBench(t)
	image := b.image("app")
	first, m := b.referrer(image, artifact.TypeBundle, signature("ours", image.Digest))
	second, again := b.referrer(image, artifact.TypeBundle, signature("ours", image.Digest), "another layer")
	fails := 1
	p, err := policy.New([]policy.Rule{{Repositories: []string{"**"}, Verify: policy.VerifyEnforce, Signed: signed.Signed}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select("registry.example.com/app", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := b.judge.Open(b.ctx, judge.Config{Image: "registry.example.com/app:v1", Repository: "registry.example.com/app", Selection: s, ReadManifest: judge.ManifestFromStore(b.store),
		Read: func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
			if fails--; fails >= 0 {
				return nil, errdefs.ErrUnavailable
			}
			return judge.FromStore(b.store)(ctx, desc)
		}})
	c.Manifest(image.Digest, "")
	c.Examine(b.ctx, image, first, m)
	if c.Holds() {
		t.Fatal("what cannot be read counts")
	}
	if c.Examine(b.ctx, image, second, again); !c.Holds() {
		t.Errorf("%s", c.Verdict(nil).Reason)
	}
}

// All evidence of one image is held to so many bytes: what is beyond is not read, and a refusal
// says so.
func TestBytesOfEvidence(t *testing.T) {
	b := newBench(t)
	image := b.image("app")
	c := b.open(signed)
	c.Manifest(image.Digest, "")
	large := strings.Repeat("x", evidence.MaxSize-8)
	for i := range 11 { // of 6 MiB each
		desc, m := b.referrer(image, artifact.TypeBundle, fmt.Sprintf("%08d", i)+large)
		c.Examine(b.ctx, image, desc, m)
	}
	if n := b.seen.n[evidence.ResultStranger]; n != 10 {
		t.Errorf("%d were read, want 10 of 6 MiB each", n)
	}
	if reason := c.Verdict(nil).Reason; !strings.Contains(reason, "64 MiB of evidence") {
		t.Errorf("the reason is %q", reason)
	}
}
