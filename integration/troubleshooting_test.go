package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	client "github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// said collects what daemons and commands say.
type said struct {
	t     *testing.T
	f     *fixture.Fixture
	texts strings.Builder
}

func (s *said) add(text string) { s.texts.WriteString(strings.ReplaceAll(text, `\"`, `"`) + "\n") }

// ctr runs ctr, whether it succeeds or not.
func (s *said) ctr(d *daemon.Daemon, args ...string) {
	stdout, stderr, err := d.CtrAll(testContext(s.t), args...)
	s.add(fmt.Sprint(stdout, stderr, err))
}

// pull pulls the whole fixture with a fresh daemon, explains it and lists what is
// stored.
func (s *said) pull(config daemon.Config, prepare func(*registry.Registry), flags ...string) *daemon.Daemon {
	reg := startRegistry(s.t, registry.Olareg)
	wholeFixture(s.f, s.t, reg)
	if prepare != nil {
		prepare(reg)
	}
	config.MayFail = true
	d := startDaemon(s.t, config)
	image := reg.Host + "/app:v1"
	s.ctr(d, append(append([]string{"images", "pull", "--platform", "linux/amd64"}, flags...), image)...)
	s.ctr(d, "referrers", "explain", "--plain-http", "--platform", "linux/amd64", image)
	s.ctr(d, "referrers", "ls", image)
	s.add(d.Log())
	return d
}

// Every text of docs/troubleshooting.md is what a daemon or a command says.
func TestTroubleshooting(t *testing.T) {
	doc, err := os.ReadFile("../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	s := &said{t: t, f: loadFixture(t)}
	s.configurations()
	s.failures()
	s.limits()
	s.hosts()
	s.lifetimes()
	s.pushes()
	s.images()
	s.verifications()
	s.trusts()
	s.gates()

	all := s.texts.String()
	readme := readDoc(t, "../README.md")
	_, readme, _ = strings.Cut(readme, "## Troubleshooting")
	inReadme := regexp.MustCompile("(?m)^\\| `(.*?)` \\| .* \\|$").FindAllStringSubmatch(readme, -1)
	if len(inReadme) < 4 {
		t.Fatalf("%d texts are in the README: the format of its table has changed", len(inReadme))
	}
	headings := regexp.MustCompile("(?m)^### `(.*)`$").FindAllStringSubmatch(string(doc), -1)
	if len(headings) < 20 {
		t.Fatalf("%d texts are documented: the format of the page has changed", len(headings))
	}
	for _, h := range append(headings, inReadme...) {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(h[1]), "…", ".+?")
		if !regexp.MustCompile(pattern).MatchString(all) {
			t.Errorf("nothing says: %s", h[1])
		}
	}
}

// gates are daemons whose gate is not active, is not required, and is off where it is.
func (s *said) gates() {
	denied := ruleFor("registry.example.com/denied/**", "deny = true")
	for _, tc := range []struct{ nri, plugin string }{{"", ""}, {unrequired, ""}, {required, `gate = "off"`}} {
		config := active(tc.plugin + denied)
		config.NRI = tc.nri
		s.add(startDaemon(s.t, config).Log())
	}
}

func (s *said) configurations() {
	for _, disabled := range [][]string{nil, {daemon.StockService}, {daemon.StockTransfer}} {
		s.pull(daemon.Config{Disabled: disabled}, nil)
	}
	for _, plugin := range []string{
		"max_refs = 3\n", `timeout = "0s"`, `timeout = "30 seconds"`, `max_blob_size = "32 megs"`,
		strings.ReplaceAll(everything, `"**"`, `"https://registry.example.com/**"`), rule(`artifact_types = ["signature"]`),
		strings.ReplaceAll(everything, `"**"`, `"library/alpine"`), rule(`artifact_types = ["!sboms"]`, `required = ["sboms"]`),
	} {
		s.add(startDaemon(s.t, daemon.Config{Disabled: daemon.Active, Plugin: plugin, MayFail: true}).Log())
	}
	s.add(startDaemon(s.t, criConfig("max_concurrent_downloads = 5\n")).Log())
	d := startDaemon(s.t, stock)
	s.add(fmt.Sprint(clientPull(s.t, d, "127.0.0.1:1/app:v1", &api.Selection{ArtifactTypes: []string{"all"}})))
}

func (s *said) failures() {
	forbid := func(r *registry.Registry) { r.Fail(registry.ReferrersFail(http.StatusForbidden)) }
	s.pull(active(everything), forbid)
	s.pull(active(rule(`artifact_types = ["all"]`, `on_error = "fail"`)), forbid)
	s.pull(active(rule(`required = ["application/vnd.example.approval"]`)), nil)
	s.pull(active(everything), func(r *registry.Registry) { r.Fail(registry.ReferrersFail(http.StatusMethodNotAllowed)) })
	s.pull(active(everything), func(r *registry.Registry) { r.Fail(registry.ReferrersFail(http.StatusNoContent)) })
	reg := startRegistry(s.t, registry.Olareg)
	wholeFixture(s.f, s.t, reg)
	d := startDaemon(s.t, active(everything))
	s.add(fmt.Sprint(clientPull(s.t, d, reg.Host+"/app:v1", &api.Selection{ArtifactTypes: []string{"signature"}})))
	// Of what is required all that the image has is denied, and taken by a client.
	d = startDaemon(s.t, active(rule(`artifact_types = ["!application/vnd.dev.sigstore.*", "!application/vnd.cncf.*"]`, `required = ["signatures"]`)))
	s.add(fmt.Sprint(clientPull(s.t, d, reg.Host+"/app:v1", &api.Selection{ArtifactTypes: []string{"all"}})))
}

func (s *said) limits() {
	s.pull(active("max_referrers = 1\n"+everything), nil)
	s.pull(active(`max_blob_size = "1B"`+everything), nil)
	s.pull(active(`max_total_size = "1KiB"`+everything), nil)
	s.pull(active(rule(`artifact_types = ["all", "!sboms"]`)), nil)
	s.pull(active(rule(`artifact_types = ["sboms"]`)), nil)
	s.pull(active(`timeout = "100ms"`+everything), func(r *registry.Registry) {
		blob := s.f.Content(fixture.SBOM)[2].String()
		r.Fail(func(_ http.ResponseWriter, q *http.Request) bool {
			if strings.HasSuffix(q.URL.Path, blob) {
				<-q.Context().Done()
			}
			return strings.HasSuffix(q.URL.Path, blob)
		})
	})
	s.pull(active(everything), func(r *registry.Registry) { // a listing for another subject
		r.Fail(func(_ http.ResponseWriter, q *http.Request) bool {
			q.URL.Path = strings.Replace(q.URL.Path, "/referrers/"+s.f.Get(fixture.Image).Digest.String(), "/referrers/"+s.f.Get(fixture.AMD64).Digest.String(), 1)
			return false
		})
	})
}

func (s *said) hosts() {
	for _, hosts := range []string{
		"server = \"http://%[1]s\"\n[host.\"http://%[2]s\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
		"server = \"http://%[2]s\"\ncapabilities = [\"pull\", \"referrers\"]\n",
	} {
		dir := s.t.TempDir()
		mirror, upstream := startRegistry(s.t, registry.Distribution), startRegistry(s.t, registry.Olareg)
		wholeFixture(s.f, s.t, mirror)
		path := filepath.Join(dir, strings.ReplaceAll(upstream.Host, ":", "_")+"_", "hosts.toml")
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, hosts, upstream.Host, mirror.Host), 0o600); err != nil {
			s.t.Fatal(err)
		}
		d := startDaemon(s.t, active(everything))
		image := upstream.Host + "/app@" + s.f.Get(fixture.Image).Digest.String()
		s.ctr(d, "images", "pull", "--platform", "linux/amd64", "--hosts-dir", dir, image)
		s.add(d.Log())
	}
	reg := startRegistry(s.t, registry.Olareg)
	wholeFixture(s.f, s.t, reg)
	for _, plugin := range []string{everything, rule(`required = ["signatures"]`)} {
		d := startDaemon(s.t, active(plugin+`
[plugins."io.containerd.cri.v1.images".registry.headers]
  x-node = ["node-7", "node-8"]
`))
		_, err := criImages(s.t, d).PullImage(testContext(s.t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: reg.Host + "/app:v1"}})
		s.add(fmt.Sprint(err, d.Log()))
	}
}

// images explains what is no image for the platform, or none that anyone would make.
func (s *said) images() {
	reg := startRegistry(s.t, registry.Olareg)
	wholeFixture(s.f, s.t, reg)
	d := startDaemon(s.t, active(everything))
	s.ctr(d, "referrers", "explain", "--platform", "linux/s390x", reg.Host+"/app:v1")
	index := s.f.Get(fixture.Image)
	for range stored.MaxImageNesting + 1 {
		index = within(s.t, reg, "deep", index)
	}
	s.ctr(d, "referrers", "explain", reg.Host+"/app:deep")
}

func (s *said) pushes() {
	from := startRegistry(s.t, registry.Olareg)
	imageAlone(s.f, s.t, from)
	if err := s.f.PushCosignTags(testContext(s.t), from, "app"); err != nil {
		s.t.Fatal(err)
	}
	image := from.Host + "/app:v1"
	d := startDaemon(s.t, active(pushTrue))
	ctr(s.t, d, "images", "pull", "--all-platforms", image)
	to := startRegistry(s.t, registry.Distribution)
	to.Fail(denied(http.MethodGet, s.f.Get(fixture.LegacySignature).Annotations[fixture.AnnotationTag], http.StatusForbidden))
	s.add(fmt.Sprint(pushAs(s.t, d, image, to.Host+"/app:v1")))
	imageUnder(s.f, s.t, to, s.f.Get(fixture.LegacySignature).Annotations[fixture.AnnotationTag])
	to.Fail(nil)
	s.add(fmt.Sprint(pushAs(s.t, d, image, to.Host+"/app:v1")))
	s.tied(d, to)

	d, whole := pulled(s.t, s.f, pushTrue)
	to = startRegistry(s.t, registry.Distribution)
	to.Fail(denied(http.MethodGet, client.FallbackTag(s.f.Get(fixture.Image).Digest), http.StatusForbidden))
	s.add(fmt.Sprint(pushAs(s.t, d, whole, to.Host+"/app:v1")))
	if err := d.Client.ContentStore().Delete(testContext(s.t), s.f.Content(fixture.SBOM)[2]); err != nil {
		s.t.Fatal(err)
	}
	to.Fail(nil)
	s.add(fmt.Sprint(pushAs(s.t, d, whole, to.Host+"/app:v1")))
}

// tied pushes an image that something else tied a manifest to, the other platform's.
func (s *said) tied(d *daemon.Daemon, to *registry.Registry) {
	ctx := testContext(s.t)
	amd64, arm64 := s.f.Get(fixture.AMD64), s.f.Get(fixture.ARM64)
	tie := labels.TieLabels(nil, arm64.Digest)
	var fields []string
	for key := range tie {
		fields = append(fields, "labels."+key)
	}
	if _, err := d.Client.ContentStore().Update(ctx, content.Info{Digest: amd64.Digest, Labels: tie}, fields...); err != nil {
		s.t.Fatal(err)
	}
	single := to.Host + "/single:v1"
	if _, err := d.Client.ImageService().Create(ctx, images.Image{Name: single, Target: ocispec.Descriptor{MediaType: amd64.MediaType, Digest: amd64.Digest, Size: amd64.Size}}); err != nil {
		s.t.Fatal(err)
	}
	s.ctr(d, "referrers", "push", "--plain-http", "--artifact-type", "application/vnd.oci.image.config.*", single)
}

func (s *said) lifetimes() {
	reg := startRegistry(s.t, registry.Olareg)
	wholeFixture(s.f, s.t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(s.t, active(everything))
	pull(s.t, d, image)
	if err := reg.DeleteManifest(testContext(s.t), "app", s.f.Get(fixture.Notation).Digest); err != nil {
		s.t.Fatal(err)
	}
	pull(s.t, d, image)
	s.ctr(d, "referrers", "ls", image)
	archive := filepath.Join(s.t.TempDir(), "image.tar")
	export(s.t, d, archive, "--platform", "linux/amd64", archive, image)
	imports := startDaemon(s.t, active(everything))
	s.ctr(imports, "images", "import", "--platform", "linux/amd64", rewrittenWithout(s.t, archive, s.f.Content(fixture.CosignSignature)[2]))
	s.add(imports.Log())
}

// verifications are rules and trusts that are refused, and images that are.
func (s *said) verifications() {
	dir := s.t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
		return path
	}
	key, root := file("key.pub", string(fixture.CosignKey)), file("ca.pem", string(authority(s.t)))
	trust := func(lines ...string) string {
		return "\n[plugins.\"io.containerd.transfer.v1.referrers\".trust.x]\n" + strings.Join(lines, "\n") + "\n"
	}
	keys := func(path string) string { return trust(fmt.Sprintf("keys = [%q]", path)) }
	vendor := trust(fmt.Sprintf("notation_roots = [%q]", root), `subjects = ["C=US, ST=WA, O=Vendor"]`)
	identity := func(id string) string {
		return trust(fmt.Sprintf("trusted_root = [%q]", key), "identities = ["+id+"]")
	}
	for _, plugin := range []string{
		rule(`verify = "enforce"`, `signed = [{ by = ["x"] }]`), keys(key) + rule(`verify = "enforce"`, `signed = [{ by = ["y"] }]`),
		rule(`signed = [{ by = ["x"] }]`), rule(`verify = "warn"`), rule(`deny = true`, `required = ["signatures"]`),
		keys(key) + rule(`verify = "enforce"`, `signed = [{ by = ["x"], at_least = 2 }]`),
		vendor + rule(`verify = "enforce"`, `attested = [{ by = ["x"], predicate_type = "p" }]`),
		keys(key) + rule(`artifact_types = ["!signatures"]`, `verify = "enforce"`, `signed = [{ by = ["x"] }]`),
		keys(key) + rule(`verify = "enforce"`, `attested = [{ by = ["x"], predicate_type = "p", where = [{ path = "/a" }] }]`),
		trust(), trust(fmt.Sprintf("keys = [%q]", key), fmt.Sprintf("notation_roots = [%q]", root)),
		trust(fmt.Sprintf("trusted_root = [%q]", key)), identity(`{ subject = "s" }`), identity(`{ issuer = "i", subject_regexp = "(" }`),
		identity(`{ issuer = "i", subject = "s" }`),
		keys(filepath.Join(dir, "nowhere")), keys(dir), keys(file("empty", "")), keys("key.pub"),
		keys(file("private", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")), keys(file("text", "my key")),
		trust(fmt.Sprintf("notation_roots = [%q]", root), `subjects = ["O=Vendor"]`), trust(fmt.Sprintf("notation_dir = %q", s.t.TempDir())),
	} {
		s.add(startDaemon(s.t, daemon.Config{Disabled: daemon.Active, Plugin: plugin, MayFail: true}).Log())
	}
	enforce := `verify = "enforce"`
	s.pull(active(keys(key)+rule(enforce, `signed = [{ by = ["x"] }]`)), nil)
	s.pull(active(keys(key)+rule(enforce, `signed = [{ by = ["x"], signed_repository = true }]`)), nil)
	other := file("other.pub", string(otherKey(s.t)))
	s.pull(active(keys(other)+rule(enforce, `signed = [{ by = ["x"] }]`)), nil)
	s.pull(active(keys(other)+rule(`verify = "warn"`, `signed = [{ by = ["x"] }]`)), nil)
	s.pull(active(keys(other)+trusting(s.t, "y", fixture.CosignKey)+rule(enforce, `signed = [{ by = ["x", "y"], at_least = 2 }]`)), nil)
	s.pull(active(keys(key)+rule(enforce, `attested = [{ by = ["x"], predicate_type = "https://slsa.dev/provenance/v1" }]`)), nil)
	s.pull(active(keys(key)+rule(enforce, `attested = [{ by = ["x"], predicate_type = "https://spdx.dev/Document", where = [{ path = "/name", equals = "other" }] }]`)), nil)
	s.pull(active(keys(key)+rule(enforce, `signed = [{ by = ["x"] }]`)), func(r *registry.Registry) { r.Fail(registry.ReferrersFail(http.StatusForbidden)) })
	s.pull(active("max_referrers = 1\n"+keys(other)+rule(enforce, `signed = [{ by = ["x"] }]`)), nil)
	s.pull(active(rule(`deny = true`)), nil)
	reg := startRegistry(s.t, registry.Olareg)
	imageAlone(s.f, s.t, reg)
	d := startDaemon(s.t, active(keys(key)+rule(enforce, `signed = [{ by = ["x"] }]`)))
	s.ctr(d, "images", "pull", "--platform", "linux/amd64", reg.Host+"/app:v1")
	d = startDaemon(s.t, active(everything))
	pull(s.t, d, reg.Host+"/app:v1")
	s.ctr(d, "referrers", "verify", reg.Host+"/app:v1")
}

// trusts change while the daemon runs, and a signature is withdrawn.
func (s *said) trusts() {
	reg := startRegistry(s.t, registry.Olareg)
	wholeFixture(s.f, s.t, reg)
	image := reg.Host + "/app:v1"
	path := filepath.Join(s.t.TempDir(), "ca.pem")
	write := func(data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	write(authority(s.t))
	d := startDaemon(s.t, active(trusting(s.t, "release", fixture.CosignKey)+fmt.Sprintf(`
  [plugins."io.containerd.transfer.v1.referrers".trust.vendor]
    notation_roots = [%q]
    subjects = ["C=US, ST=WA, O=Vendor"]
`, path)+rule(`verify = "enforce"`, `signed = [{ by = ["release", "vendor"] }]`)))
	pull(s.t, d, image)
	for _, data := range [][]byte{[]byte("spoilt"), authority(s.t), olderAuthority(s.t)} {
		write(data)
		s.ctr(d, "referrers", "verify", image)
	}
	if err := reg.DeleteManifest(testContext(s.t), "app", s.f.Get(fixture.CosignSignature).Digest); err != nil {
		s.t.Fatal(err)
	}
	s.ctr(d, "images", "pull", "--platform", "linux/amd64", image)
	s.ctr(d, "referrers", "verify", image)
	s.add(d.Log())
}
