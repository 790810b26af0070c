package integration

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// trusted returns a hosts directory that has the certificate of a registry.
func trusted(t *testing.T, reg *registry.Registry) string {
	t.Helper()
	dir := t.TempDir()
	host := filepath.Join(dir, strings.ReplaceAll(reg.Host, ":", "_")+"_")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"ca.pem":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: reg.Certificate()}),
		"hosts.toml": fmt.Appendf(nil, "server = %q\nca = %q\n", "https://"+reg.Host, filepath.Join(host, "ca.pem")),
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(host, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A pull of a signed image with its referrers, of another image of the same registry, and of the
// first again, each with all its requests, share one connection where the registry offers HTTP/2. Where it does
// not, the image has one and its referrers those that are opened for them; the next image uses them again, and
// opens one or two only where it needs more at once. Stock containerd, which has no memory of a registry, opens at
// least one for each pull.
func TestConnectionsOfPulls(t *testing.T) {
	for name, tc := range map[string]struct {
		opts       []registry.Option
		least, max int // connections of the first pull
		another    int // most connections of the pull of another image
	}{
		"HTTP/2":         {[]registry.Option{registry.WithTLS(), registry.WithHTTP2()}, 1, 1, 0},
		"HTTP/1.1 alone": {[]registry.Option{registry.WithTLS()}, 2, 7, 2},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, d *daemon.Daemon, active bool) {
				reg := startRegistry(t, registry.Olareg, append(tc.opts, registry.WithToken("user", "secret"))...)
				for _, repository := range []string{"app", "other"} {
					image := pushSmall(t, reg, repository, "v1", repository)
					attach(t, reg, repository, image.Descriptor, "application/vnd.cncf.notary.signature", []byte("signature of "+repository))
				}
				dir := trusted(t, reg)
				var connections, tokens []int
				for _, repository := range []string{"app", "other", "app"} {
					reg.Reset()
					pull(t, d, reg.Host+"/"+repository+":v1", "--hosts-dir", dir, "-u", "user:secret")
					connections, tokens = append(connections, reg.Connections()), append(tokens, reg.Count("/token"))
				}
				t.Logf("connections %v, token requests %v", connections, tokens)
				if !active {
					for i, n := range connections {
						if n < 1 {
							t.Errorf("stock containerd opened %d connections in pull %d", n, i)
						}
					}
					return
				}
				if got := connections[0]; got < tc.least || got > tc.max {
					t.Errorf("the first pull opened %d connections, want %d to %d", got, tc.least, tc.max)
				}
				if connections[2] != 0 || tokens[2] != 0 {
					t.Errorf("the pull of the same image opened %d connections and fetched %d tokens, want none", connections[2], tokens[2])
				}
				if tokens[0] != 1 || tokens[1] != 1 {
					t.Errorf("%v token requests, want one for each repository", tokens)
				}
				if connections[1] > tc.another || connections[0]+connections[1] > tc.max {
					t.Errorf("the pull of another image opened %d connections beside the first's %d, want %d at most, and %d in all", connections[1], connections[0], tc.another, tc.max)
				}
			})
		})
	}
}

// A mirror that fails for listings, while the registry behind it answers, costs a pull one request
// for each subject at most, and the next pull none.
func TestMirrorThatFailsIsNotRetried(t *testing.T) {
	upstream, mirror := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	image := pushSmall(t, upstream, "app", "v1", "signed")
	signature, _ := attach(t, upstream, "app", image.Descriptor, "application/vnd.cncf.notary.signature", []byte("signature"))
	mirror.Fail(registry.ReferrersFail(http.StatusInternalServerError))
	d := startDaemon(t, active("cosign_tags = \"never\"\n"+everything))
	dir := mirrored(t, upstream, mirror)
	for n, want := range []int{1, 0} {
		mirror.Reset()
		pull(t, d, upstream.Host+"/app:v1", "--hosts-dir", dir)
		if got := mirror.Count("/referrers/"); got != want {
			t.Errorf("pull %d asked the mirror for %d listings, want %d: %v", n, got, want, mirror.Requests())
		}
	}
	if read := ls(t, d, upstream.Host+"/app:v1").Referrers; len(read) != 1 || read[0].Digest != signature.Digest {
		t.Errorf("stored is %+v, want the signature", read)
	}
}

// A mirror that fails for cosign's tags, and answers for all else, costs a pull one request for each tag
// at most, and the next pull none.
func TestMirrorThatFailsForCosignTagsIsNotRetried(t *testing.T) {
	upstream, mirror := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	image := pushSmall(t, upstream, "app", "v1", "signed")
	signature, _ := attach(t, upstream, "app", image.Descriptor, "application/vnd.cncf.notary.signature", []byte("signature"))
	mirror.Fail(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/manifests/sha256-") {
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	d := startDaemon(t, active("cosign_tags = \"auto\"\n"+everything))
	dir := mirrored(t, upstream, mirror)
	tags := map[string]int{} // requests at the registry
	for n, most := range []int{1, 0} {
		mirror.Reset()
		upstream.Reset()
		pull(t, d, upstream.Host+"/app:v1", "--hosts-dir", dir)
		for _, suffix := range []string{".att", ".sbom"} { // the signature spares the third
			tag := "/manifests/sha256-" + image.Digest.Encoded() + suffix
			if got := mirror.Count(tag); got > most {
				t.Errorf("pull %d asked the mirror for %s %d times, want %d at most: %v", n, suffix, got, most, mirror.Requests())
			}
			tags[suffix] += upstream.Count(tag)
		}
		if asked := mirror.Count("/manifests/sha256-"); n == 0 && asked == 0 {
			t.Error("the mirror was asked for no tag")
		}
	}
	if tags[".att"] != 2 || tags[".sbom"] != 2 {
		t.Errorf("the registry was asked %v times in two pulls, want once in each", tags)
	}
	if read := ls(t, d, upstream.Host+"/app:v1").Referrers; len(read) != 1 || read[0].Digest != signature.Digest {
		t.Errorf("stored is %+v, want the signature", read)
	}
}
