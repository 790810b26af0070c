package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// both runs a test against stock containerd and against one with the plugin.
func both(t *testing.T, test func(t *testing.T, d *daemon.Daemon, active bool)) {
	bothWith(t, "", test)
}

// bothWith is both, with TOML that both daemons have.
func bothWith(t *testing.T, toml string, test func(t *testing.T, d *daemon.Daemon, active bool)) {
	for _, active := range []bool{false, true} {
		name, config := "stock", daemon.Config{Binary: stockBinary(t), Plugin: toml}
		if active {
			name, config = "plugin", daemon.Config{Disabled: daemon.Active, Plugin: everything + toml}
		}
		t.Run(name, func(t *testing.T) { test(t, startDaemon(t, config), active) })
	}
}

// wantReferrers checks that the plugin, and only the plugin, brought referrers.
func wantReferrers(t *testing.T, d *daemon.Daemon, image string, active bool) {
	t.Helper()
	want := 0
	if active {
		want = 5
	}
	if n := len(ls(t, d, image).Referrers); n != want {
		t.Errorf("%d referrers are stored, want %d", n, want)
	}
}

func TestFlagPlainHTTP(t *testing.T) {
	f := loadFixture(t)
	plain, secure := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg, registry.WithTLS())
	wholeFixture(f, t, plain)
	wholeFixture(f, t, secure)
	both(t, func(t *testing.T, d *daemon.Daemon, active bool) {
		pull(t, d, plain.Host+"/app:v1", "--plain-http")
		wantReferrers(t, d, plain.Host+"/app:v1", active)
		_, err := d.Ctr(testContext(t), "images", "pull", "--plain-http", secure.Host+"/app:v1")
		if err == nil {
			t.Error("plain HTTP reached a registry that speaks TLS")
		}
		if n := secure.Count("/v2/"); n != 0 {
			t.Errorf("%d requests reached a registry that speaks TLS", n)
		}
	})
}

// The hosts directory names a mirror, a certificate authority and a header, and
// all requests keep to it: none reaches the registry itself.
func TestFlagHostsDir(t *testing.T) {
	f := loadFixture(t)
	mirror, upstream := startRegistry(t, registry.Olareg, registry.WithTLS()), startRegistry(t, registry.Olareg)
	wholeFixture(f, t, mirror)
	dir := t.TempDir()
	host := filepath.Join(dir, strings.ReplaceAll(upstream.Host, ":", "_")+"_")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(host, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: mirror.Certificate()}), 0o644); err != nil {
		t.Fatal(err)
	}
	toml := fmt.Sprintf(`server = "http://%s"
[host."https://%s"]
  capabilities = ["pull", "resolve"]
  ca = %q
  [host."https://%s".header]
    X-Node = "node-7"
`, upstream.Host, mirror.Host, ca, mirror.Host)
	if err := os.WriteFile(filepath.Join(host, "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
	both(t, func(t *testing.T, d *daemon.Daemon, active bool) {
		mirror.Reset()
		image := upstream.Host + "/app:v1"
		// A listing that the mirror lacks is the registry's to give: the
		// referrers of the SBOM's signature, say. All else is at the mirror.
		pull(t, d, image, "--hosts-dir", dir)
		wantReferrers(t, d, image, active)
		for _, r := range upstream.Requests() {
			if !strings.Contains(r.Path, "/referrers/") && !strings.Contains(r.Path, "/manifests/sha256-") {
				t.Errorf("a request went past the mirror: %s", r)
			}
		}
		for _, r := range mirror.Requests() {
			if !strings.Contains(r.Path, "ns="+strings.ReplaceAll(upstream.Host, ":", "%3A")) {
				t.Errorf("the mirror was not told for whom: %s", r)
			}
			if r.Header.Get("X-Node") != "node-7" {
				t.Errorf("the mirror did not get the configured header: %s", r)
			}
		}
	})
}

// A mirror whose API lies below a path of its own, that wants a certificate and
// whose own cannot be verified.
func TestHostsDirOverridePathAndClientCertificate(t *testing.T) {
	f := loadFixture(t)
	mirror := startRegistry(t, registry.Olareg, registry.WithTLS(), registry.WithClientCertificate(), registry.WithPrefix("/cache/docker"))
	wholeFixture(f, t, mirror)
	dir := t.TempDir()
	host := filepath.Join(dir, "registry.example.com")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	pair := filepath.Join(host, "client.pem")
	if err := os.WriteFile(pair, clientCertificate(t), 0o600); err != nil {
		t.Fatal(err)
	}
	toml := fmt.Sprintf(`server = "https://%[1]s/cache/docker/v2"
override_path = true
skip_verify = true
client = %[2]q
`, mirror.Host, pair)
	if err := os.WriteFile(filepath.Join(host, "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
	both(t, func(t *testing.T, d *daemon.Daemon, active bool) {
		image := "registry.example.com/app:v1"
		pull(t, d, image, "--hosts-dir", dir)
		wantReferrers(t, d, image, active)
	})
}

func clientCertificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

func TestFlagUser(t *testing.T) {
	f := loadFixture(t)
	for _, auth := range []registry.Option{registry.WithBasic("user", "secret"), registry.WithToken("user", "secret")} {
		reg := startRegistry(t, registry.Olareg, auth)
		wholeFixture(f, t, reg)
		both(t, func(t *testing.T, d *daemon.Daemon, active bool) {
			image := reg.Host + "/app:v1"
			if _, err := d.Ctr(testContext(t), "images", "pull", "--plain-http", image); err == nil {
				t.Error("the pull succeeded without credentials")
			}
			pull(t, d, image, "--plain-http", "-u", "user:secret")
			wantReferrers(t, d, image, active)
		})
	}
}

// ctr prints what the daemon says to the registry, request by request.
func TestFlagHTTPDump(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	both(t, func(t *testing.T, d *daemon.Daemon, active bool) {
		image := reg.Host + "/app:v1"
		_, stderr, err := d.CtrAll(testContext(t), "images", "pull", "--plain-http", "--http-dump", "--platform", "linux/amd64", image)
		if err != nil {
			t.Fatal(err, stderr)
		}
		resolve := "HEAD"
		if active {
			resolve = "GET" // of an image that is not there
		}
		for _, text := range []string{resolve + " /v2/app/manifests/v1 HTTP/1.1", "GET /v2/app/manifests/sha256:", "HTTP/1.1 200 OK", "Host: " + reg.Host} {
			if !strings.Contains(stderr, text) {
				t.Errorf("the dump lacks %q", text)
			}
		}
		if dumped := strings.Contains(stderr, "GET /v2/app/referrers/sha256:"); dumped != active {
			t.Errorf("requests for referrers in the dump: %v, want %v", dumped, active)
		}
	})
}

func TestFlagHTTPTrace(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	both(t, func(t *testing.T, d *daemon.Daemon, active bool) {
		image := reg.Host + "/app:v1"
		pull(t, d, image, "--plain-http", "--http-trace")
		wantReferrers(t, d, image, active)
		if len(d.LogLines("Connection successful")) == 0 {
			t.Error("no connection was traced")
		}
	})
}
