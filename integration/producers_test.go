package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// What oras and regctl attach is found in every registry: through the API where
// there is one, with the right type even where the registry lists another, and
// through the fallback tag that the tools write where there is none.
func TestProducersAndRegistries(t *testing.T) {
	f := loadFixture(t)
	for _, kind := range registry.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			reg := startRegistry(t, kind)
			imageAlone(f, t, reg)
			image := reg.Host + "/app:v1"
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "sbom.json"), []byte(`{"bomFormat":"CycloneDX"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			tool(t, dir, "oras", "attach", "--plain-http", "--artifact-type", "application/vnd.cyclonedx+json", image, "sbom.json")
			tool(t, dir, "regctl", "--host", "reg="+reg.Host+",tls=disabled", "artifact", "put",
				"--artifact-type", "application/vnd.cncf.notary.signature", "--subject", image, "-f", "sbom.json")
			tool(t, dir, "regctl", "--host", "reg="+reg.Host+",tls=disabled", "artifact", "put",
				"--artifact-type", "application/vnd.example.unwanted", "--subject", image, "-f", "sbom.json")
			tool(t, dir, "oras", "attach", "--plain-http", "--platform", "linux/amd64", "--artifact-type", "application/spdx+json", image, "sbom.json")

			d := startDaemon(t, active(rule(`artifact_types = ["signatures", "sboms"]`)))
			pull(t, d, image, "--plain-http")
			read := ls(t, d, image)
			var got []string
			for _, r := range read.Referrers {
				got = append(got, fmt.Sprintf("%s of %s", r.ArtifactType, f.Name(r.Subject)))
			}
			slices.Sort(got)
			want := []string{
				"application/spdx+json of amd64",
				"application/vnd.cncf.notary.signature of image",
				"application/vnd.cyclonedx+json of image",
			}
			if !slices.Equal(got, want) {
				t.Errorf("stored referrers:\n got %q\nwant %q", got, want)
			}
			if read.Status != labels.Present {
				t.Errorf("status is %q, want present", read.Status)
			}
		})
	}
}

// A listing of several pages is taken whole.
func TestPages(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithPageSize(1500))
	imageAlone(f, t, reg)
	const n = 12
	for i := range n {
		if _, err := reg.Attach(testContext(t), "app", f.Get("image"), "application/spdx+json", nil, fmt.Appendf(nil, "sbom %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	d := startDaemon(t, active(rule(`artifact_types = ["sboms"]`, "depth = 1")))
	image := reg.Host + "/app:v1"
	pull(t, d, image) // without --plain-http: TLS is tried first, as stock does
	if got := len(ls(t, d, image).Referrers); got != n {
		t.Errorf("%d referrers are stored, want %d", got, n)
	}
	if reg.Count("page=") == 0 {
		t.Error("the listing had one page: the test tests nothing")
	}
}

// tool runs a producer, as users do.
func tool(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	toolOutput(t, dir, name, args...)
}

func toolOutput(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v (`make tools` installs it)\n%s", name, args, err, out)
	}
	return string(out)
}
