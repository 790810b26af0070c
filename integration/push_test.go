package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	client "github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

const pushTrue = "push = true\n" + everything

// all are the referrers of the fixture's image, for all platforms.
var all = []string{
	fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation,
	fixture.SBOM, fixture.VEX, fixture.SBOM + "/" + fixture.SBOMSignature, fixture.SBOMARM64,
}

// pulled is a daemon that has the fixture's image for all platforms with all its
// referrers, under the name that is returned.
func pulled(t *testing.T, f *fixture.Fixture, plugin string) (*daemon.Daemon, string) {
	t.Helper()
	from := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, from)
	d := startDaemon(t, active(plugin))
	image := from.Host + "/app:v1"
	ctr(t, d, "images", "pull", "--plain-http", "--all-platforms", image)
	wantNames(t, f, ls(t, d, image), all...)
	return d, image
}

// pushAs tags the image and pushes it.
func pushAs(t *testing.T, d *daemon.Daemon, image, as string, flags ...string) error {
	t.Helper()
	ctr(t, d, "images", "tag", "--force", image, as)
	_, err := d.Ctr(testContext(t), append(append([]string{"images", "push", "--plain-http"}, flags...), as)...)
	return err
}

// wantPullable pulls the image into another daemon and checks what comes with it.
func wantPullable(t *testing.T, f *fixture.Fixture, image string, want ...string) {
	t.Helper()
	d := startDaemon(t, active(everything))
	ctr(t, d, "images", "pull", "--plain-http", "--all-platforms", image)
	wantNames(t, f, ls(t, d, image), want...)
}

// sent returns the requests that change what the registry holds.
func sent(reg *registry.Registry) []string {
	var out []string
	for _, r := range reg.Requests() {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Path != "/token" {
			out = append(out, r.Method+" "+r.Path)
		}
	}
	return out
}

// fetched returns content of the repository app as the registry holds it, by its digest
// or by a tag.
func fetched[R ~string](t *testing.T, reg *registry.Registry, kind string, reference R) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), http.MethodGet, fmt.Sprintf("%s/v2/app/%s/%s", reg.Backend, kind, reference), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", client.AcceptAny)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s: %s", kind, reference, resp.Status)
	}
	return data
}

// A push carries what is stored to registries with the API and without, to the byte,
// each referrer after its subject and each manifest after its blobs; another daemon
// finds it all, and a second push sends nothing.
func TestPush(t *testing.T) {
	f := loadFixture(t)
	d, image := pulled(t, f, pushTrue)
	for _, kind := range registry.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			to := startRegistry(t, kind)
			as := to.Host + "/app:v1"
			if err := pushAs(t, d, image, as); err != nil {
				t.Fatal(err)
			}
			wantOrder(t, f, to)
			// go-containerregistry lists by itself but does not say so.
			if n := to.Count("/manifests/sha256-"); (n == 0) != (kind == registry.Olareg) {
				t.Errorf("%d requests for fallback tags", n)
			}
			for _, name := range all {
				name = name[strings.LastIndex(name, "/")+1:]
				for i, dgst := range f.Content(name) {
					kind := "blobs"
					if i == 0 {
						kind = "manifests"
					}
					want, err := f.Blob(dgst)
					if err != nil {
						t.Fatal(err)
					}
					if got := fetched(t, to, kind, dgst); !bytes.Equal(got, want) {
						t.Errorf("%s: %s differs in the registry: %q", name, dgst, got)
					}
				}
			}
			to.Reset()
			if err := pushAs(t, d, image, as); err != nil {
				t.Fatal(err)
			}
			if again := sent(to); len(again) > 0 {
				t.Errorf("the second push sends %q", again)
			}
			wantPullable(t, f, as, all...)
		})
	}
}

// wantOrder checks by the registry's log that nothing came before what it names.
func wantOrder(t *testing.T, f *fixture.Fixture, reg *registry.Registry) {
	t.Helper()
	at := map[string]int{}
	for i, r := range reg.Requests() {
		path := strings.ReplaceAll(r.Path, "%3A", ":")
		if r.Method == http.MethodPut && r.Code/100 == 2 {
			for _, name := range f.Names() {
				for _, dgst := range append(f.Content(name), f.Get(name).Digest) {
					if strings.Contains(path, dgst.String()) {
						at[dgst.String()] = i + 1
					}
				}
			}
			if strings.HasSuffix(path, "/manifests/v1") {
				at[f.Get(fixture.Image).Digest.String()] = i + 1
			}
		}
	}
	for _, name := range f.Names() {
		d := f.Get(name)
		subject := d.Annotations[fixture.AnnotationSubject]
		if subject == "" || d.Annotations[fixture.AnnotationTag] != "" {
			continue
		}
		own := at[d.Digest.String()]
		switch {
		case own == 0:
			t.Errorf("%s was not put", name)
		case at[subject] == 0 || at[subject] > own:
			t.Errorf("%s was put at %d, its subject at %d", name, own, at[subject])
		}
		for _, dgst := range f.Content(name)[1:] {
			if at[dgst.String()] > own {
				t.Errorf("%s was put at %d, its blob %s at %d", name, own, dgst, at[dgst.String()])
			}
		}
	}
}
