package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// BenchmarkHundredSignatures judges an image that a hundred referrers sign, the last of which
// counts: what they add to a pull, but for their transfer.
func BenchmarkHundredSignatures(b *testing.B) {
	const identity, issuer = "https://git.example.com/org/app", "https://token.example.com"
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("app"), Size: 3}
	key, sigstoreRoot := sigstoretest.NewKey(b), sigstoretest.New(b)
	for name, sc := range map[string]struct {
		config trust.Config
		sign   func() []byte
	}{
		"key": {trust.Config{Keys: []string{file(b, key.PEM)}}, func() []byte { return key.Signature(b, subject.Digest) }},
		"keyless": {
			trust.Config{TrustedRoot: []string{file(b, sigstoreRoot.Root)}, Identities: []trust.Identity{{Issuer: issuer, Subject: identity}}},
			func() []byte { return sigstoreRoot.Signature(b, subject.Digest, identity, issuer) },
		},
	} {
		b.Run(name, func(b *testing.B) {
			trusts, err := trust.Open(map[string]trust.Config{"release": sc.config}, new(sigstore.Loader))
			if err != nil {
				b.Fatal(err)
			}
			rules, err := policy.New([]policy.Rule{{Repositories: []string{"**"}, Verify: policy.VerifyEnforce, Signed: []policy.Signed{{By: []string{"release"}}}}})
			if err != nil {
				b.Fatal(err)
			}
			selection, err := rules.Select("registry.example.com/app", nil)
			if err != nil {
				b.Fatal(err)
			}
			s := shelf{}
			var referrers []ocispec.Descriptor
			var manifests []*artifact.Manifest
			for range 100 {
				desc, m := s.refer(b, subject, sc.sign())
				referrers, manifests = append(referrers, desc), append(manifests, m)
			}
			j := judge.New(trusts, nil)
			for b.Loop() {
				c := j.Open(b.Context(), judge.Config{Image: "registry.example.com/app:v1", Repository: "registry.example.com/app", Selection: selection, Read: s.read, ReadManifest: s.read})
				c.Manifest(subject.Digest, "")
				var group errgroup.Group
				group.SetLimit(3) // as many as a pull takes at a time
				for i, desc := range referrers {
					group.Go(func() error {
						c.Examine(b.Context(), subject, desc, manifests[i])
						return nil
					})
				}
				_ = group.Wait() // of work that cannot fail
				if v := c.Verdict(nil); v.Result != verdict.Verified || len(v.Evidence) != 100 {
					b.Fatal(v.Reason)
				}
			}
		})
	}
}

// shelf is what is stored, by its digest.
type shelf map[digest.Digest][]byte

func (s shelf) read(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return s[desc.Digest], nil
}

func (s shelf) refer(b *testing.B, subject ocispec.Descriptor, bundle []byte) (ocispec.Descriptor, *artifact.Manifest) {
	b.Helper()
	layer := ocispec.Descriptor{MediaType: artifact.TypeBundle, Digest: digest.FromBytes(bundle), Size: int64(len(bundle))}
	data, err := json.Marshal(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifact.TypeBundle, Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{layer}, Subject: &subject,
	})
	if err != nil {
		b.Fatal(err)
	}
	m, err := artifact.Parse(data, "")
	if err != nil {
		b.Fatal(err)
	}
	s[layer.Digest] = bundle
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(data), Size: int64(len(data))}, m
}

func file(b *testing.B, data []byte) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), fmt.Sprint(len(data)))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}
