package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/streaming"
	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

var update = flag.Bool("update", false, "write testdata anew")

// The shape of an explanation's JSON, which programs read.
func TestExplanationJSON(t *testing.T) {
	b := newBench(t)
	app := b.manifest("app")
	root := b.index("root", app)
	b.put("empty", ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Data)
	known := b.put("known", ocispec.MediaTypeImageManifest, ocispec.Manifest{ArtifactType: "text/known", Config: ocispec.DescriptorEmptyJSON, Subject: &app})
	sbom := b.put("sbom", ocispec.MediaTypeImageManifest, ocispec.Manifest{ArtifactType: "application/spdx+json", Config: ocispec.DescriptorEmptyJSON, Subject: &app})
	if err := stored.NewLabeler(b.store).Tie(b.ctx, app.Digest, sbom.Digest, known.Digest); err != nil {
		t.Fatal(err)
	}
	elsewhere := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("elsewhere"), Size: 1}
	sbom.ArtifactType, elsewhere.ArtifactType = "application/spdx+json", "application/vnd.dev.cosign.artifact.sig.v1+json"

	p := b.query()
	p.name, p.t.config.Limits, p.t.config.Cosign = "registry.example.com/app:v1", gather.DefaultLimits, gather.CosignAuto
	rules, err := policy.New([]policy.Rule{{Repositories: []string{"**"}, ArtifactTypes: []string{"all"}, OnError: policy.Fail}})
	if err != nil {
		t.Fatal(err)
	}
	if p.selection, err = rules.Select("registry.example.com/app", nil); err != nil {
		t.Fatal(err)
	}
	out := &outcome.Outcome{TimedOut: true, Unasked: 2, Subjects: []outcome.Subject{
		{
			Digest: root.Digest, MediaType: root.MediaType, Image: true, Status: labels.Truncated, Why: "truncated",
			Answers: []outcome.Answer{
				{Host: "mirror.example.com", Mirror: true, Via: outcome.EndpointReferrers, Request: "referrers", Code: 404, Detail: "no such endpoint"},
				{Host: "mirror.example.com", Mirror: true, Via: outcome.EndpointFallbackTag, Request: "tag sha256-…", Code: 404, Status: labels.Absent},
				{Host: "registry.example.com", Via: outcome.EndpointReferrers, Request: "referrers", Code: 200, Status: labels.Truncated, Limit: outcome.LimitListing, Detail: "more than 16 pages"},
			},
		},
		{Digest: elsewhere.Digest, MediaType: elsewhere.MediaType, Status: labels.Unknown, Why: "unknown", Skipped: []outcome.Referrer{{Reason: "a request failed", Status: labels.Unknown}}},
		{
			Digest: app.Digest, MediaType: app.MediaType, Image: true, Status: labels.Present,
			Answers: []outcome.Answer{
				{Host: "registry.example.com", Via: outcome.EndpointCosignTag, Request: "tag sha256-….sig", Code: 200, Status: labels.Present},
				{Host: "registry.example.com", Via: outcome.EndpointCosignTag, Request: "tag sha256-….att", Code: 200, Status: labels.Truncated, Limit: outcome.LimitManifest},
				{Host: "registry.example.com", Via: outcome.EndpointReferrers, Request: "referrers", Code: 200, Status: labels.Present, Detail: "2 listed"},
			},
			Taken: []outcome.Referrer{
				{Digest: sbom.Digest, ArtifactType: sbom.ArtifactType, Via: "listing", Reason: `rule 1: artifact type "all"`},
				{Digest: elsewhere.Digest, ArtifactType: elsewhere.ArtifactType, Via: "cosign_tag", Reason: `rule 1: artifact type "all"`},
			},
			Skipped: []outcome.Referrer{
				{Digest: known.Digest, ArtifactType: "application/vnd.in-toto+json", Via: "image_index", Reason: "over the limit", Status: labels.Truncated, Limit: outcome.LimitReferrers},
			},
		},
	}}
	e := p.explanation(b.ctx, root.Digest, out, map[string]string{app.Digest.String(): "linux/amd64"})
	got, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	wantGolden(t, "explanation.json", append(got, '\n'))

	var read explain.Explanation
	if err := json.Unmarshal(got, &read); err != nil {
		t.Fatal(err)
	}
	if again, err := json.MarshalIndent(read, "", "  "); err != nil || !bytes.Equal(again, got) {
		t.Errorf("a client reads %s, %v\nof %s", again, err, got)
	}
}

func wantGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs, which `go test ./transfer -run %s -update` writes anew:\n%s", path, t.Name(), got)
	}
}

// wire joins the ends of the answer's stream.
type wire chan typeurl.Any

func (w wire) Create(context.Context, string) (streaming.Stream, error) { return w, nil }
func (w wire) Get(context.Context, string) (streaming.Stream, error)    { return w, nil }
func (w wire) Close() error                                             { return nil }
func (w wire) Recv() (typeurl.Any, error)                               { return <-w, nil }

func (w wire) Send(m typeurl.Any) error {
	w <- m
	return nil
}

// explained asks a Transferrer that takes what the rules say.
func (b *bench) explained(src *ociregistry.OCIRegistry, platform string, rules ...policy.Rule) (*explain.Explanation, error) {
	b.t.Helper()
	p, err := policy.New(rules)
	if err != nil {
		b.t.Fatal(err)
	}
	client, daemon, w := explain.New(platforms.MustParse(platform)), &explain.Destination{}, make(wire, 1)
	message, err := client.MarshalAny(b.ctx, w)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := daemon.UnmarshalAny(b.ctx, w, message); err != nil {
		b.t.Fatal(err)
	}
	limits := gather.DefaultLimits
	limits.Timeout = 10 * time.Second
	if err := New(Config{Store: b.store, Policy: p, Limits: limits, Cosign: gather.CosignNever}).Transfer(b.ctx, src, daemon); err != nil {
		return nil, err
	}
	return client.Explanation(b.ctx)
}

// An image that has nothing for the platform is not one that a pull brings, whatever
// the rule says.
func TestExplainWithoutAManifestForThePlatform(t *testing.T) {
	b := newBench(t)
	b.remote = true
	nested := b.index("nested", on("linux/arm64", b.manifest("arm64")))
	root := b.index("root", on("linux/amd64", b.manifest("amd64")), attestation(on("unknown/unknown", b.manifest("attestation"))), nested)
	everything := policy.Rule{Repositories: []string{"**"}, ArtifactTypes: []string{"all"}}
	elsewhere := policy.Rule{Repositories: []string{"other.example.com/**"}, ArtifactTypes: []string{"all"}}
	src := b.served(root)
	for _, rule := range []policy.Rule{everything, elsewhere} {
		_, err := b.explained(src, "linux/s390x", rule)
		if want := "image " + src.Image() + " has no manifest for linux/s390x: its index names linux/amd64, linux/arm64"; !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("rule for %s: %v, want %s", rule.Repositories[0], err, want)
		}
		for _, platform := range []string{"linux/amd64", "linux/arm64"} {
			e, err := b.explained(src, platform, rule)
			if err != nil {
				t.Errorf("%s: %v", platform, err)
				continue
			}
			if asked := rule.Repositories[0] == "**"; (len(e.Subjects) > 0) != asked {
				t.Errorf("%s: %d subjects under the rule for %s", platform, len(e.Subjects), rule.Repositories[0])
			}
			if e.Stored || e.CosignTags != "never" || e.Limits.Timeout != "10s" || e.Limits.MaxTotalSize != 128<<20 {
				t.Errorf("%s: %+v", platform, e)
			}
		}
	}
	// An index may leave it to the configs for which platforms its manifests are.
	if _, err := b.explained(b.served(b.index("silent", b.manifest("of no platform"))), "linux/s390x", everything); err != nil {
		t.Error(err)
	}
	if _, err := b.explained(b.served(b.index("hollow")), "linux/s390x", everything); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "names no platform") {
		t.Errorf("an index of nothing: %v", err)
	}
}
