package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	client "github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// metricsEndpoint makes a daemon serve its metrics, on a port of its choice.
const metricsEndpoint = `
[plugins."io.containerd.server.v1.metrics"]
  address = "127.0.0.1:0"
`

// families are a scrape's metrics by name.
type families map[string]*dto.MetricFamily

var addressInLog = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// scrape reads the daemon's metrics endpoint.
func scrape(t *testing.T, d *daemon.Daemon) families {
	t.Helper()
	ctx := testContext(t)
	var address string
	for address == "" { // the log says where it is, soon after the sockets serve
		for _, line := range d.LogLines("serving...") {
			if found := addressInLog.FindString(line); found != "" {
				address = found
			}
		}
		if ctx.Err() != nil {
			t.Fatal("the log does not say where metrics are served")
		}
		time.Sleep(10 * time.Millisecond)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the endpoint answers %s", resp.Status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	out, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// value sums the samples of a counter that have all the labels ("name=value").
func (f families) value(metric string, labels ...string) float64 {
	sum := 0.0
	for _, m := range f[metric].GetMetric() {
		has := 0
		for _, l := range m.GetLabel() {
			if slices.Contains(labels, l.GetName()+"="+l.GetValue()) {
				has++
			}
		}
		if has == len(labels) {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// movers is a policy and a limit under which pulls end in different ways.
func movers() string {
	of := func(name string, lines ...string) string {
		return strings.ReplaceAll(rule(lines...), `"**"`, `"**/`+name+`"`)
	}
	return `max_blob_size = "1KiB"` + // notation's signature holds more
		of("app", `artifact_types = ["all"]`) +
		of("sboms", `artifact_types = ["sboms"]`) +
		of("strict", `required = ["application/vnd.example.approval"]`)
}

// moveMetrics makes pulls that move every metric.
func moveMetrics(t *testing.T, d *daemon.Daemon) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	for _, repository := range []string{"app", "sboms", "strict", "unselected"} {
		if err := f.Push(testContext(t), reg, repository, "v1"); err != nil {
			t.Fatal(err)
		}
	}
	tags := startRegistry(t, registry.Distribution)
	if err := f.Push(testContext(t), tags, "sboms", "v1"); err != nil {
		t.Fatal(err)
	}
	listUnderTag(t, f, tags, "sboms", fixture.AMD64, fixture.SBOM)
	failing := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, failing)
	failing.Fail(registry.ReferrersFail(http.StatusBadGateway))
	unsigned := startRegistry(t, registry.GoContainerRegistry, registry.WithToken("user", "secret"), registry.WithTLS(), registry.WithHTTP2())
	imageAlone(f, t, unsigned)

	pull(t, d, reg.Host+"/app:v1")
	pull(t, d, reg.Host+"/sboms:v1")
	pull(t, d, reg.Host+"/unselected:v1")
	pull(t, d, tags.Host+"/sboms:v1")
	pull(t, d, failing.Host+"/app:v1")
	dir := trusted(t, unsigned)
	for range 2 { // the second has the token of the first
		pull(t, d, unsigned.Host+"/app:v1", "--hosts-dir", dir, "-u", "user:secret")
	}
	pull(t, d, reg.Host+"/app:v1", "--hosts-dir", mirrored(t, reg, startMirror(t)))
	for _, image := range []string{"/strict:v1", "/app:nowhere"} {
		if _, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", reg.Host+image); err == nil {
			t.Fatalf("the pull of %s succeeded", image)
		}
	}
}

// expiringTrusts are trusts in the key that signed the fixture and in certificates that end,
// and rules that verify by them. spoil makes a file of one of them useless.
func expiringTrusts(t *testing.T) (plugin string, spoil func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, authority(t), 0o600); err != nil {
		t.Fatal(err)
	}
	of := func(name, mode, by string) string {
		return strings.NewReplacer(`"**"`, `"**/`+name+`"`, `"release"`, `"`+by+`"`).Replace(verifying(fmt.Sprintf("verify = %q", mode)))
	}
	plugin = trusting(t, "release", fixture.CosignKey) + fmt.Sprintf(`
  [plugins."io.containerd.transfer.v1.referrers".trust.vendor]
    notation_roots = [%q]
    subjects = ["C=US, ST=WA, O=Vendor"]
`, path) + of("signed", "enforce", "release") + of("refused", "enforce", "vendor") + of("warned", "warn", "vendor")
	return plugin, func() {
		if err := os.WriteFile(path, []byte("spoilt"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// authority is a root certificate that ends in an hour, PEM.
func authority(t *testing.T) []byte { return authorityOf(t, time.Now().Add(-time.Minute)) }

// olderAuthority is one that began before authority's do.
func olderAuthority(t *testing.T) []byte { return authorityOf(t, time.Now().Add(-time.Hour)) }

func authorityOf(t *testing.T, begins time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Vendor"}},
		NotBefore: begins, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// moveVerdicts makes pulls that are verified, refused, and refused with a warning.
func moveVerdicts(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	reg := startRegistry(t, registry.Olareg)
	for _, repository := range []string{"signed", "refused", "warned"} {
		if err := loadFixture(t).Push(testContext(t), reg, repository, "v1"); err != nil {
			t.Fatal(err)
		}
	}
	pull(t, d, reg.Host+"/signed:v1")
	pull(t, d, reg.Host+"/warned:v1")
	if _, err := d.Ctr(testContext(t), "images", "pull", "--platform", "linux/amd64", reg.Host+"/refused:v1"); err == nil {
		t.Fatal("the pull of an image that is not signed succeeded")
	}
}

// listUnderTag puts the fallback tag into a registry without the referrers
// endpoint, as clients that push referrers do.
func listUnderTag(t *testing.T, f *fixture.Fixture, reg *registry.Registry, repository, subject string, referrers ...string) {
	t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range referrers {
		desc := f.Get(name)
		desc.Annotations = nil
		index.Manifests = append(index.Manifests, desc)
	}
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.PushManifest(testContext(t), repository, client.FallbackTag(f.Get(subject).Digest), index.MediaType, data); err != nil {
		t.Fatal(err)
	}
}

func startMirror(t *testing.T) *registry.Registry {
	t.Helper()
	mirror := startRegistry(t, registry.Olareg)
	wholeFixture(loadFixture(t), t, mirror)
	return mirror
}

// mirrored returns a hosts directory in which the mirror stands in for the registry.
func mirrored(t *testing.T, upstream, mirror *registry.Registry) string {
	t.Helper()
	dir := t.TempDir()
	host := filepath.Join(dir, strings.ReplaceAll(upstream.Host, ":", "_")+"_")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	toml := fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n", upstream.Host, mirror.Host)
	if err := os.WriteFile(filepath.Join(host, "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Pulls move what they should, once, on the endpoint of containerd's own metrics;
// docs/metrics.md documents what is there, all of it and no more; and every query
// of docs/grafana.json has something to show.
func TestMetrics(t *testing.T) {
	trusts, spoil := expiringTrusts(t)
	config := active(movers() + trusts)
	config.Extra = metricsEndpoint
	d := startDaemon(t, config)
	before := scrape(t, d)
	documented(t, before)
	if n := before.value("transfer_referrers_pulls_total"); n != 0 {
		t.Errorf("%v pulls are counted before the first", n)
	}
	moveMetrics(t, d)
	moveVerdicts(t, d)
	spoil()
	after := scrape(t, d)
	documented(t, after) // nothing that came from the network has become a label
	for _, want := range []struct {
		metric string
		labels []string
		value  float64
	}{
		{"pulls_total", []string{"outcome=truncated"}, 4}, // from the registry, through the mirror, verified, and not with a warning
		{"pulls_total", []string{"outcome=present"}, 2},
		{"pulls_total", []string{"outcome=unknown"}, 1},
		{"pulls_total", []string{"outcome=absent"}, 2},
		{"pulls_total", []string{"outcome=refused"}, 2},
		{"pulls_total", []string{"outcome=failed"}, 1},
		{"pulls_total", []string{"outcome=unselected"}, 1},
		{"pulls_total", nil, 13},
		{"refusals_total", []string{"limit=max_blob_size"}, 5},
		{"refusals_total", nil, 5},
		{"requests_total", []string{"code=none"}, 0},
		{"verdicts_total", []string{"result=verified", "mode=enforce"}, 1},
		{"verdicts_total", []string{"result=refused", "mode=enforce"}, 1},
		{"verdicts_total", []string{"result=refused", "mode=warn"}, 1},
		{"verdicts_total", nil, 3},
		{"listings_total", []string{"host=mirror", "via=endpoint", "status=present"}, 3}, // the index, its manifest, the SBOM
	} {
		if got := after.value("transfer_referrers_"+want.metric, want.labels...); got != want.value {
			t.Errorf("%s%v is %v, want %v", want.metric, want.labels, got, want.value)
		}
	}
	for _, moved := range []struct {
		metric string
		labels []string
	}{
		{"listings_total", []string{"host=registry", "via=endpoint", "status=present"}},
		{"listings_total", []string{"host=registry", "via=endpoint", "status=unknown"}},
		{"listings_total", []string{"host=registry", "via=fallback_tag", "status=present"}},
		{"listings_total", []string{"host=registry", "via=fallback_tag", "status=absent"}},
		{"listings_total", []string{"host=registry", "via=cosign_tag", "status=absent"}},
		{"taken_total", []string{"set=signatures"}},
		{"taken_total", []string{"set=attestations"}},
		{"taken_total", []string{"set=sboms"}},
		{"taken_total", []string{"set=other"}},
		{"taken_bytes_total", nil},
		{"requests_total", []string{"operation=referrers", "code=2xx"}},
		{"requests_total", []string{"operation=referrers", "code=5xx"}},
		{"requests_total", []string{"operation=tag", "code=4xx"}},
		{"requests_total", []string{"operation=manifest", "code=2xx"}},
		{"requests_total", []string{"operation=blob", "code=2xx"}},
		{"connections_total", nil},
		{"answers_total", []string{"protocol=HTTP/1.1"}},
		{"answers_total", []string{"protocol=HTTP/2.0"}},
		{"authorized_total", []string{"token=fetched"}},
		{"authorized_total", []string{"token=remembered"}},
	} {
		if after.value("transfer_referrers_"+moved.metric, moved.labels...) == 0 {
			t.Errorf("%s%v did not move", moved.metric, moved.labels)
		}
	}
	// The failed and the unselected pull looked for no referrers.
	if n := after["transfer_referrers_wait_seconds"].GetMetric()[0].GetHistogram().GetSampleCount(); n != 11 {
		t.Errorf("%d waits are counted, want 11", n)
	}
	for title, queries := range dashboard(t) {
		for _, query := range queries {
			if err := answers(query, after); err != nil {
				t.Errorf("panel %q, query %s: %v", title, query, err)
			}
		}
	}
	for _, query := range alerts(t) {
		if strings.Contains(query, ofTheGate) { // TestGateJudgesContainers moves those
			continue
		}
		if err := answers(query, after); err != nil {
			t.Errorf("alert %s: %v", query, err)
		}
	}
}

// ofTheGate is what metrics of the gate begin with.
const ofTheGate = "transfer_referrers_gate_"

// A plugin that is inert registers nothing.
func TestMetricsOfAnInertPlugin(t *testing.T) {
	d := startDaemon(t, daemon.Config{Extra: metricsEndpoint})
	for name := range scrape(t, d) {
		if strings.HasPrefix(name, "transfer_referrers_") {
			t.Errorf("%s is there", name)
		}
	}
}

// documented holds the metrics against the table of docs/metrics.md.
func documented(t *testing.T, scraped families) {
	t.Helper()
	type metric struct {
		kind   string
		labels map[string][]string
	}
	docs, there := map[string]metric{}, map[string]metric{}
	for line := range strings.Lines(readDoc(t, "metrics.md")) {
		if !strings.HasPrefix(line, "| `transfer_referrers_") {
			continue
		}
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.TrimSpace(cells[4]) == "" {
			t.Fatalf("not a row of the table: %s", line)
		}
		m := metric{strings.TrimSpace(cells[2]), map[string][]string{}}
		for _, label := range strings.Split(strings.TrimSpace(cells[3]), "; ") {
			if name, values, ok := strings.Cut(label, ": "); ok {
				of := strings.Split(strings.ReplaceAll(values, "`", ""), ", ")
				slices.Sort(of)
				m.labels[strings.Trim(name, "`")] = of
			}
		}
		docs[strings.Trim(cells[1], " `")] = m
	}
	for name, family := range scraped {
		if !strings.HasPrefix(name, "transfer_referrers_") {
			continue
		}
		m := metric{strings.ToLower(family.GetType().String()), map[string][]string{}}
		for _, sample := range family.GetMetric() {
			for _, l := range sample.GetLabel() {
				if !slices.Contains(m.labels[l.GetName()], l.GetValue()) {
					m.labels[l.GetName()] = append(m.labels[l.GetName()], l.GetValue())
				}
			}
		}
		for _, values := range m.labels {
			slices.Sort(values)
		}
		there[name] = m
	}
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		if _, ok := there[name]; !ok {
			t.Errorf("%s is documented but not there", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(there)) {
		got, want := fmt.Sprint(there[name]), fmt.Sprint(docs[name])
		if got != want {
			t.Errorf("%s is %s, and documented as %s", name, got, want)
		}
	}
	if len(docs) == 0 {
		t.Error("no metric is documented")
	}
}

func readDoc(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
