package transfer

import (
	"net/http"
	"strings"
	"testing"

	imagestore "github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/local"
	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/metrics"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// CRI hands over headers as they are written. One that containerd's message loses would
// be missing in the requests for referrers: the image is pulled without them, or not at all.
func TestPullWithAHeaderThatIsLost(t *testing.T) {
	for name, tc := range map[string]struct {
		rules   []policy.Rule
		refused string // "" where the pull goes on
	}{
		"no rules":            {nil, ""},
		"nothing is required": {[]policy.Rule{{Repositories: []string{"**"}, ArtifactTypes: []string{"all"}}}, ""},
		"required elsewhere":  {[]policy.Rule{{Repositories: []string{"other.test/**"}, Required: []string{"signatures"}}, {Repositories: []string{"**"}, ArtifactTypes: []string{"all"}}}, ""},
		"required":            {[]policy.Rule{{Repositories: []string{"**/app"}, Required: []string{"signatures", "sboms"}}}, `rule 1, repository "**/app" requires signatures, sboms: `},
		"fail":                {[]policy.Rule{{Repositories: []string{"**"}, OnError: policy.Fail, ArtifactTypes: []string{"sboms"}}}, `rule 1, repository "**" has on_error = "fail": `},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.remote = true
			root := b.put("image", ocispec.MediaTypeImageManifest, ocispec.Manifest{
				Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
				Config: b.put("config", ocispec.MediaTypeImageConfig, ocispec.Image{}),
			})
			server := b.serve(root)
			ref := server.Host() + "/app:v1"
			src, err := ociregistry.NewOCIRegistry(b.ctx, ref, ociregistry.WithHeaders(http.Header{"x-node": {"node-7"}}))
			if err != nil {
				t.Fatal(err)
			}
			rules, err := policy.New(tc.rules)
			if err != nil {
				t.Fatal(err)
			}
			counted := prometheus.NewRegistry()
			m, err := metrics.Register(counted)
			if err != nil {
				t.Fatal(err)
			}
			wrapped := local.NewTransferService(b.store, b.images, local.TransferConfig{})
			puller := New(Config{Local: wrapped, Store: b.store, Images: b.images, Policy: rules, Limits: gather.DefaultLimits, Cosign: gather.CosignAuto, Metrics: m})
			err = puller.Transfer(b.ctx, src, imagestore.NewStore(ref))

			outcome := metrics.Unknown
			if tc.refused != "" {
				outcome = metrics.Refused
				for _, want := range []string{"the referrers of image " + ref + " cannot be asked for, and " + tc.refused, "loses the registry header x-node", "write X-Node in containerd's config.toml"} {
					if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), want) {
						t.Errorf("%v, want errdefs.ErrFailedPrecondition with %q", err, want)
					}
				}
			} else if err != nil {
				t.Error(err)
			}
			if _, err := b.images.Get(b.ctx, ref); errdefs.IsNotFound(err) != (tc.refused != "") {
				t.Errorf("the image's record: %v", err)
			}
			for _, r := range server.Requests() {
				if r.Header.Get("X-Node") != "node-7" {
					t.Errorf("%s %s lacks the header", r.Method, r.Path)
				}
				if strings.Contains(r.Path, "/referrers/") || strings.HasPrefix(r.Path, "/v2/app/manifests/sha256-") {
					t.Errorf("referrers were asked for: %s", r.Path)
				}
			}
			if got := pulls(t, counted); len(got) != 1 || got[string(outcome)] != 1 {
				t.Errorf("counted are %v, want one pull that is %s", got, outcome)
			}
		})
	}
}

// A source of another type tells nothing of its registry, so no answer of that could be
// believed. An explanation that asks without the header would be of another pull.
func TestSourcesThatCannotBeAskedThrough(t *testing.T) {
	b := newBench(t)
	b.remote = true
	root := b.manifest("app")
	server := b.serve(root)
	lost, err := ociregistry.NewOCIRegistry(b.ctx, server.Host()+"/app:v1", ociregistry.WithHeaders(http.Header{"x-node": {"node-7"}}))
	if err != nil {
		t.Fatal(err)
	}
	required := policy.Rule{Repositories: []string{"**"}, Required: []string{"signatures"}}
	if _, err := b.explained(lost, "linux/amd64", required); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "write X-Node") {
		t.Errorf("explained: %v", err)
	}
	rules, err := policy.New([]policy.Rule{required})
	if err != nil {
		t.Fatal(err)
	}
	puller := New(Config{Local: local.NewTransferService(b.store, b.images, local.TransferConfig{}), Store: b.store, Policy: rules, Limits: gather.DefaultLimits})
	const name = "registry.example.com/app:v1" // image's
	err = puller.Transfer(b.ctx, image{b, root}, imagestore.NewStore(name))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "requires signatures: a transfer.image does not tell how its registry is asked") {
		t.Errorf("pulled: %v", err)
	}
	if _, err := b.images.Get(b.ctx, name); !errdefs.IsNotFound(err) {
		t.Errorf("the image's record: %v", err)
	}
	if requests := server.Requests(); len(requests) > 0 {
		t.Errorf("%d requests came without the header", len(requests))
	}
}

// pulls returns the pulls that were counted, by outcome.
func pulls(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			if n := m.GetCounter().GetValue(); f.GetName() == "transfer_referrers_pulls_total" && n > 0 {
				out[m.Label[0].GetValue()] = n
			}
		}
	}
	return out
}
