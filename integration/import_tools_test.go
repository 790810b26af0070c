package integration

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// tied are all stored referrers, each with its subject and its type, sorted.
func tied(referrers []stored.Referrer) []string {
	var out []string
	for _, r := range referrers {
		out = append(out, fmt.Sprintf("%s of %s: %s", r.Digest, r.Subject, r.ArtifactType))
		out = append(out, tied(r.Referrers)...)
	}
	slices.Sort(out)
	return out
}

// wantSaid fails unless the last import said, in the log and to its client, that it tied n
// referrers.
func wantSaid(t *testing.T, d *daemon.Daemon, printed string, n int) {
	t.Helper()
	if event := fmt.Sprintf("Tied %d referrers", n); !strings.Contains(printed, event) {
		t.Errorf("the client is not told %q but\n%s", event, printed)
	}
	lines := d.LogLines("referrers: imported")
	if len(lines) == 0 || !strings.Contains(lines[len(lines)-1], fmt.Sprintf("restored=%d", n)) {
		t.Errorf("the log does not say that %d referrers were restored: %q", n, lines)
	}
}

// tarred is the directory as a tar archive.
func tarred(t *testing.T, dir string) string {
	t.Helper()
	file, err := os.Create(dir + ".tar")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := tar.NewWriter(file)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

// What oras and regctl write into an OCI layout keeps its referrers through an import:
// they are known there by their subject field, or by tags, and by no annotation that
// containerd knows. The image has then what a pull brings.
func TestImportOfOtherToolsArchives(t *testing.T) {
	f := loadFixture(t)
	for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
		reg := startRegistry(t, kind)
		wholeFixture(f, t, reg)
		if err := f.PushCosignTags(testContext(t), reg, "app"); err != nil {
			t.Fatal(err)
		}
		if kind == registry.Distribution {
			listUnderTag(t, f, reg, "app", fixture.Image, fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation)
			listUnderTag(t, f, reg, "app", fixture.AMD64, fixture.SBOM, fixture.VEX)
			listUnderTag(t, f, reg, "app", fixture.ARM64, fixture.SBOMARM64)
			listUnderTag(t, f, reg, "app", fixture.SBOM, fixture.SBOMSignature)
		}
		image := reg.Host + "/app:v1"
		pulled := map[bool][]string{}
		for tags, plugin := range map[bool]string{false: `cosign_tags = "never"`, true: `cosign_tags = "always"`} {
			d := startDaemon(t, active(plugin+everything))
			ctr(t, d, "images", "pull", "--all-platforms", image)
			pulled[tags] = tied(ls(t, d, image).Referrers)
		}
		if len(pulled[false]) != 7 || len(pulled[true]) != 10 {
			t.Fatalf("the fixture is not whole: %q, %q", pulled[false], pulled[true])
		}
		d := startDaemon(t, active(everything))
		for _, tc := range []struct {
			name  string
			write func(t *testing.T, dir string) string
			tags  bool // cosign's are in it
		}{
			{"oras cp -r", func(t *testing.T, dir string) string {
				tool(t, dir, "oras", "cp", "-r", "--from-plain-http", "--to-oci-layout", image, "layout:v1")
				return tarred(t, filepath.Join(dir, "layout"))
			}, false},
			{"oras backup", func(t *testing.T, dir string) string {
				tool(t, dir, "oras", "backup", "--plain-http", "--include-referrers", "-o", "backup.tar", image)
				return filepath.Join(dir, "backup.tar")
			}, false},
			{"oras backup of a repository", func(t *testing.T, dir string) string {
				tool(t, dir, "oras", "backup", "--plain-http", "--include-referrers", "-o", "layout", reg.Host+"/app")
				return tarred(t, filepath.Join(dir, "layout"))
			}, true},
			{"regctl image copy --referrers", func(t *testing.T, dir string) string {
				tool(t, dir, "regctl", "--host", "reg="+reg.Host+",tls=disabled", "image", "copy", "--referrers", image, "ocidir://layout:v1")
				return tarred(t, filepath.Join(dir, "layout"))
			}, false},
			{"regctl image copy --referrers --digest-tags", func(t *testing.T, dir string) string {
				tool(t, dir, "regctl", "--host", "reg="+reg.Host+",tls=disabled", "image", "copy", "--referrers", "--digest-tags", image, "ocidir://layout:v1")
				return tarred(t, filepath.Join(dir, "layout"))
			}, true},
		} {
			t.Run(string(kind)+", "+tc.name, func(t *testing.T) {
				path := tc.write(t, t.TempDir())
				printed := ctr(t, d, "images", "import", "--all-platforms", "--base-name", "example.com/app", path)
				wantSaid(t, d, printed, len(pulled[tc.tags]))
				collect(t, d)
				if got := tied(ls(t, d, "example.com/app:v1").Referrers); !slices.Equal(got, pulled[tc.tags]) {
					t.Errorf("tied are\n %s\na pull ties\n %s", strings.Join(got, "\n "), strings.Join(pulled[tc.tags], "\n "))
				}
				referrerContent(t, d, "default", "example.com/app:v1")
				if out := ctr(t, d, "images", "check"); !strings.Contains(out, "complete") {
					t.Errorf("the image is not complete: %s", out)
				}
				if names := imageNames(t, d); !slices.Equal(names, []string{"example.com/app:v1"}) {
					t.Errorf("image records: %q", names)
				}
				ctr(t, d, "images", "rm", "--sync", "example.com/app:v1")
				wantNothing(t, d)
			})
		}
	}
}
