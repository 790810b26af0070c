package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/image"
	registries "github.com/containerd/containerd/v2/core/transfer/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	client "github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// `ctr referrers push` carries what it is told to, whatever the key push says, and
// nothing that refers to what is left out.
func TestPushSelection(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, everything)
	for _, tc := range []struct {
		name  string
		flags []string
		want  []string
	}{
		{"all that is stored", nil, all},
		{"a set", []string{"--artifact-type", "sboms"}, []string{fixture.SBOM, fixture.SBOMARM64}},
		{"several", []string{"--artifact-type", "sboms", "--artifact-type", "application/vnd.cncf.notary.*"},
			[]string{fixture.SBOM, fixture.SBOM + "/" + fixture.SBOMSignature, fixture.SBOMARM64, fixture.Notation}},
		{"a denial", []string{"--artifact-type", "all", "--artifact-type", "!sboms"},
			[]string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.VEX}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			to := startRegistry(t, registry.Olareg)
			as := to.Host + "/app:v1"
			out := ctr(t, d, append(append([]string{"referrers", "push", "--plain-http"}, tc.flags...), as, image)...)
			if !strings.Contains(out, "image "+image+" is pushed to "+as+", with its referrers") {
				t.Errorf("ctr prints %s", out)
			}
			wantPullable(t, f, as, tc.want...)
		})
	}
	t.Run("cannot be read", func(t *testing.T) {
		to := startRegistry(t, registry.Olareg)
		_, err := d.Ctr(testContext(t), "referrers", "push", "--plain-http", "--artifact-type", "signature", to.Host+"/app:v1", image)
		wantError(t, err, `"signature" is neither a media type nor a set`)
		if n := len(to.Requests()); n > 0 {
			t.Errorf("%d requests were made all the same", n)
		}
	})
}

// Of a platform that is pushed alone the referrers go alone, with the index's.
func TestPushPlatform(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, pushTrue)
	to := startRegistry(t, registry.Olareg)
	imageAlone(f, t, to) // registries refuse an index whose manifests they lack
	if err := pushAs(t, d, image, to.Host+"/app:v1", "--platform", "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	other := startDaemon(t, active(everything))
	pull(t, other, to.Host+"/app:v1", "--plain-http")
	want := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == fixture.SBOMARM64 })
	wantNames(t, f, ls(t, other, to.Host+"/app:v1"), want...)
	if n := to.Count("PUT /v2/app/manifests/" + f.Get(fixture.SBOMARM64).Digest.String()); n != 0 {
		t.Error("a referrer was pushed whose subject was not")
	}
}

// Without push = true and a Selection a push is stock containerd's, request by
// request.
func TestPushFalseIsStock(t *testing.T) {
	f := loadFixture(t)
	// One at a time, so that it is always the same request that has no token yet.
	const one = "\n  max_concurrent_uploaded_layers = 1\n"
	configs := []daemon.Config{
		{Plugin: `[plugins."io.containerd.transfer.v1.local"]` + one},
		active(everything + `[plugins."io.containerd.transfer.v1.referrers".local]` + one),
	}
	for _, opts := range [][]registry.Option{nil, {registry.WithToken("user", "secret")}, {registry.WithBasic("user", "secret")}} {
		var asked [2][]string
		for i, config := range configs {
			from, to := startRegistry(t, registry.Olareg), startRegistry(t, registry.Distribution, opts...)
			wholeFixture(f, t, from)
			d := startDaemon(t, config)
			ctr(t, d, "images", "pull", "--plain-http", "--all-platforms", from.Host+"/app:v1")
			if err := pushAs(t, d, from.Host+"/app:v1", to.Host+"/app:v1", "-u", "user:secret"); err != nil {
				t.Fatal(err)
			}
			for _, r := range to.Requests() {
				path, query, _ := strings.Cut(r.Path, "?")
				if upload, _, ok := strings.Cut(path, "/uploads/"); ok {
					path, query = upload, "" // names and states are random
				}
				authorization, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
				asked[i] = append(asked[i], fmt.Sprint(r.Method, " ", path, " ", query, " ", r.Code, " ", authorization, " ", r.Header.Get("Content-Type"), " ", r.Header.Get("Accept")))
			}
		}
		if !slices.Equal(asked[0], asked[1]) {
			t.Errorf("stock asks\n%s\nthe plugin\n%s", strings.Join(asked[0], "\n"), strings.Join(asked[1], "\n"))
		}
	}
}

// One token does for the image and for all of its referrers, and credentials reach
// their registry.
func TestPushCredentials(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, pushTrue)
	for name, auth := range map[string]registry.Option{"token": registry.WithToken("user", "secret"), "basic": registry.WithBasic("user", "secret")} {
		for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
			t.Run(name+" "+string(kind), func(t *testing.T) {
				to := startRegistry(t, kind, auth)
				as := to.Host + "/app:v1"
				if err := pushAs(t, d, image, as); err == nil {
					t.Error("the push succeeded without credentials")
				}
				to.Reset()
				if err := pushAs(t, d, image, as, "-u", "user:secret"); err != nil {
					t.Fatal(err)
				}
				if n := to.Count("/token"); name == "token" && n != 1 {
					t.Errorf("%d token requests, want 1", n)
				}
				for _, n := range f.Names() {
					if e := f.Get(n); e.Annotations[fixture.AnnotationTag] == "" {
						fetched(t, to, "manifests", e.Digest)
					}
				}
			})
		}
	}
}

// What the registry has in another repository is mounted, not sent.
func TestPushMounts(t *testing.T) {
	f := loadFixture(t)
	for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
		t.Run(string(kind), func(t *testing.T) {
			reg := startRegistry(t, kind)
			from := reg.Host + "/base:v1"
			if err := f.PushImage(testContext(t), reg, "base", "v1"); err != nil {
				t.Fatal(err)
			}
			if err := f.PushReferrers(testContext(t), reg, "base"); err != nil {
				t.Fatal(err)
			}
			first, image := pulled(t, f, pushTrue) // distribution lists nothing by itself
			if err := pushAs(t, first, image, from); err != nil {
				t.Fatal(err)
			}
			d := startDaemon(t, active(pushTrue))
			ctr(t, d, "images", "pull", "--plain-http", "--all-platforms", from)
			wantNames(t, f, ls(t, d, from), all...)
			reg.Reset()
			if err := pushAs(t, d, from, reg.Host+"/app:v1"); err != nil {
				t.Fatal(err)
			}
			mounted := map[string]bool{}
			for _, r := range reg.Requests() {
				_, blob, ok := strings.Cut(strings.ReplaceAll(r.Path, "%3A", ":"), "mount=")
				if blob, _, _ = strings.Cut(blob, "&"); ok && r.Code == http.StatusCreated {
					mounted[blob] = true
				}
				if r.Method == http.MethodPut && strings.Contains(r.Path, "/blobs/") || r.Method == http.MethodPatch {
					t.Errorf("sent: %s", r)
				}
			}
			for _, name := range []string{fixture.CosignSignature, fixture.Notation, fixture.SBOM, fixture.SBOMSignature} {
				for _, blob := range f.Content(name)[1:] {
					if !mounted[blob.String()] {
						t.Errorf("%s: %s was not mounted", name, blob)
					}
				}
			}
		})
	}
}

// The hosts directory says where referrers go, with its certificate and headers, as it
// does for the image; and ctr shows what is asked there.
func TestPushHostsDir(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, everything)
	to := startRegistry(t, registry.Distribution, registry.WithTLS())
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "registry.example.com"), 0o755); err != nil {
		t.Fatal(err)
	}
	toml := fmt.Sprintf("server = \"https://%s\"\nskip_verify = true\n[header]\n  X-Node = \"node-7\"\n", to.Host)
	if err := os.WriteFile(filepath.Join(dir, "registry.example.com", "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
	_, stderr, err := d.CtrAll(testContext(t), "referrers", "push", "--hosts-dir", dir, "--http-dump", "registry.example.com/app:v1", image)
	if err != nil {
		t.Fatal(err, stderr)
	}
	tag := "PUT /v2/app/manifests/" + client.FallbackTag(f.Get(fixture.Image).Digest)
	for _, text := range []string{tag, "PUT /v2/app/manifests/" + f.Get(fixture.Notation).Digest.String()} {
		if to.Count(text) != 1 || !strings.Contains(stderr, text) {
			t.Errorf("%d requests %q, in the dump: %v", to.Count(text), text, strings.Contains(stderr, text))
		}
	}
	for _, r := range to.Requests() {
		if r.Header.Get("X-Node") != "node-7" || !strings.Contains(r.Path, "ns=registry.example.com") {
			t.Errorf("without the configured header or the registry's name: %s", r)
		}
	}
}

// Pushes of several daemons to a registry that answers slowly, each of referrers of
// its own, lose nothing of the fallback tag; nor what others wrote there.
func TestConcurrentPushes(t *testing.T) {
	f := loadFixture(t)
	to := startRegistry(t, registry.Distribution, registry.WithDelay(20*time.Millisecond))
	as := to.Host + "/app:v1"
	one, image := pulled(t, f, everything)
	two, other := pulled(t, f, everything)
	var wg sync.WaitGroup
	for i, types := range []string{"application/vnd.cncf.notary.signature", "sboms", "vex/openvex", "attestations", "signatures", "application/spdx+json"} {
		d, local := one, image
		if i%2 == 1 {
			d, local = two, other
		}
		wg.Go(func() {
			if _, err := d.Ctr(testContext(t), "referrers", "push", "--plain-http", "--artifact-type", types, as, local); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return strings.Contains(name, "/") })
	wantPullable(t, f, as, want...)
}

// What is pushed is what oras finds, and what oras attaches later stays with it.
func TestPushAndOtherTools(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, pushTrue)
	to := startRegistry(t, registry.Distribution)
	as := to.Host + "/app:v1"
	if err := pushAs(t, d, image, as); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := toolOutput(t, dir, "oras", "discover", "--plain-http", "--format", "json", as)
	for _, name := range []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation} {
		if !strings.Contains(out, f.Get(name).Digest.String()) {
			t.Errorf("oras does not find %s: %s", name, out)
		}
	}
}

// A Go client selects with the destination; progress names each referrer beneath its
// subject, closes all that it opens, and says last that the push is complete.
func TestPushProgress(t *testing.T) {
	f := loadFixture(t)
	d, local := pulled(t, f, everything)
	to := startRegistry(t, registry.Olareg)
	ctx := testContext(t)
	dst, err := source.New(ctx, to.Host+"/app:v1",
		source.WithRegistry(registries.WithDefaultScheme("http")),
		source.WithSelection(&api.Selection{}))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	parents, last, event := map[string][]string{}, map[string]string{}, ""
	err = d.Client.Transfer(ctx, image.NewStore(local), dst, transfer.WithProgress(func(p transfer.Progress) {
		mu.Lock()
		defer mu.Unlock()
		parents[p.Name], last[p.Name], event = p.Parents, p.Event, p.Event
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
	for name, e := range last {
		if e == "uploading" || e == "waiting" {
			t.Errorf("%s ends as %q", name, e)
		}
	}
	if !strings.HasPrefix(event, "Completed push") {
		t.Errorf("the last event is %q", event)
	}
}
