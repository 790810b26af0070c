package integration

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	registries "github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

var amd64 = platforms.MustParse("linux/amd64")

func clientPull(t *testing.T, d *daemon.Daemon, ref string, selection *api.Selection, opts ...transfer.Opt) error {
	t.Helper()
	ctx := testContext(t)
	src, err := source.New(ctx, ref,
		source.WithRegistry(registry.WithDefaultScheme("http")),
		source.WithSelection(selection))
	if err != nil {
		t.Fatal(err)
	}
	return d.Client.Transfer(ctx, src, image.NewStore(ref, image.WithPlatforms(amd64)), opts...)
}

// A Go client's Selection replaces the artifact types of the rule, and nothing
// else.
func TestClientSelection(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registries.Olareg)
	wholeFixture(f, t, reg)
	ref := reg.Host + "/app:v1"
	for _, tc := range []struct {
		name, plugin string
		types        []string
		want         []string
		says         []string
	}{
		{"replaces the rule's types", rule(`artifact_types = ["signatures"]`), []string{"sboms"},
			[]string{fixture.SBOM}, nil},
		{"empty leaves them", rule(`artifact_types = ["sboms"]`), nil,
			[]string{fixture.SBOM}, nil},
		{"does not lift what is required", rule(`artifact_types = ["all"]`, `required = ["application/vnd.cncf.notary.signature"]`), []string{"vex/openvex"},
			[]string{fixture.Notation, fixture.VEX}, nil},
		{"does not lift what is required and missing", rule(`artifact_types = ["all"]`, `required = ["application/vnd.example.approval"]`), []string{"vex/openvex"},
			nil, []string{"lacks referrers", "application/vnd.example.approval"}},
		{"holds where no rule matches", strings.ReplaceAll(everything, "**", "registry.example.com/**"), []string{"vex/openvex"},
			[]string{fixture.VEX}, nil},
		{"cannot be read", everything, []string{"signature"},
			nil, []string{"selection", `"signature" is neither a media type nor a set`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, active(tc.plugin))
			err := clientPull(t, d, ref, &api.Selection{ArtifactTypes: tc.types})
			if tc.says != nil {
				wantError(t, err, tc.says...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantNames(t, f, ls(t, d, ref), tc.want...)
		})
	}
}

// A Selection of everything is held by the limits as the rule is.
func TestClientSelectionLiftsNoLimit(t *testing.T) {
	const blob, referrers = 600, 4
	for _, tc := range []struct {
		name, plugin string
		most         int   // referrers
		bytes        int64 // of all that is stored of them
	}{
		{"max_referrers", "max_referrers = 2\n", 2, 1 << 20},
		{"max_blob_size", "max_blob_size = \"599B\"\n", 0, 1 << 20},
		{"max_total_size", "max_total_size = \"2500B\"\n", 2, 2500},
		{"none", "", referrers, 1 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := startRegistry(t, registries.Olareg)
			image := pushSmall(t, reg, "app", "v1", "image")
			for i := range referrers {
				attach(t, reg, "app", image.Descriptor, "application/vnd.example.text", []byte(strings.Repeat(fmt.Sprint(i), blob)))
			}
			d := startDaemon(t, active(tc.plugin+rule(`artifact_types = ["signatures"]`)))
			ref := reg.Host + "/app:v1"
			if err := clientPull(t, d, ref, nil); err != nil {
				t.Fatal(err)
			}
			before := storedBytes(t, d)
			if err := clientPull(t, d, ref, &api.Selection{ArtifactTypes: []string{"all"}}); err != nil {
				t.Fatal(err)
			}
			read := ls(t, d, ref)
			status := labels.Truncated
			if tc.name == "none" {
				status = labels.Present
			}
			if n := len(read.Referrers); n > tc.most || (tc.name != "max_total_size" && n != tc.most) || read.Status != status {
				t.Errorf("%d referrers are stored, status %q; want %d, %q", n, read.Status, tc.most, status)
			}
			if n := storedBytes(t, d) - before; n > tc.bytes {
				t.Errorf("%d bytes came in, want at most %d", n, tc.bytes)
			}
		})
	}
}

// storedBytes is the size of all that is in the daemon's content store.
func storedBytes(t *testing.T, d *daemon.Daemon) (n int64) {
	t.Helper()
	if err := d.Client.ContentStore().Walk(testContext(t), func(info content.Info) error {
		n += info.Size
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// A daemon whose plugin is not active refuses a pull with a Selection, rather
// than to leave the referrers out without a word; one without it works.
func TestClientSelectionNeedsThePlugin(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registries.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, stock)
	wantError(t, clientPull(t, d, reg.Host+"/app:v1", &api.Selection{ArtifactTypes: []string{"all"}}),
		"the referrers plugin is not active", "disabled_plugins")
	if err := clientPull(t, d, reg.Host+"/app:v1", nil); err != nil {
		t.Error(err)
	}
}

// Progress names each referrer beneath its subject, and closes all that it opens.
func TestProgress(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registries.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	var mu sync.Mutex
	parents, last := map[string][]string{}, map[string]string{}
	err := clientPull(t, d, reg.Host+"/app:v1", nil, transfer.WithProgress(func(p transfer.Progress) {
		mu.Lock()
		defer mu.Unlock()
		parents[p.Name], last[p.Name] = p.Parents, p.Event
	}))
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	key := func(d ocispec.Descriptor) string {
		return remotes.MakeRefKey(t.Context(), ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest})
	}
	for referrer, subject := range map[string]string{
		fixture.CosignSignature: fixture.Image,
		fixture.SBOM:            fixture.AMD64,
		fixture.SBOMSignature:   fixture.SBOM,
	} {
		if got := parents[key(f.Get(referrer))]; !slices.Equal(got, []string{key(f.Get(subject))}) {
			t.Errorf("%s is shown beneath %q, not beneath %s", referrer, got, subject)
		}
	}
	for name, event := range last {
		if event == "downloading" || event == "waiting" && strings.HasPrefix(name, "unknown-") {
			t.Errorf("%s ends as %q", name, event)
		}
	}
}
