package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

type inventoryReferrer struct {
	Digest, ArtifactType string
	Subjects             []string
	PredicateTypes       []string
	Size                 int64
}

type inventory struct {
	Namespace string
	Images    []struct {
		Digest     string
		Names      []struct{ Image, Result, Mode, Rule, Reason, Error string }
		Containers []string
		Status     string
		Error      string

		SBOMs, Attestations, Signatures, Other []inventoryReferrer
	}
	ContainersWithoutImage []struct{ Container, Image string }
	Unjudged               string
}

func takeInventory(t *testing.T, d *daemon.Daemon, code int) inventory {
	t.Helper()
	r := referrers(t, d, "inventory").want(t, code)
	var i inventory
	if err := json.Unmarshal([]byte(r.stdout), &i); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	return i
}

// An inventory has each image once, with its names and their verdicts, its containers and its
// referrers by kind; no registry is asked.
func TestInventory(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(trusting(t, "team", fixture.CosignKey)+everything+"    verify = \"enforce\"\n"+signedBy(`by = ["team"]`)))
	pull(t, d, image)
	runCtr(t, d, "images", "tag", image, "example.com/other:v1").want(t, 0)
	useImage(t, d, "one", image)
	useImage(t, d, "two", "example.com/other:v1")
	useImage(t, d, "stray", "example.com/gone:v1")
	reg.Fail(unreachable)
	reg.Reset()
	i := takeInventory(t, d, 0)
	if i.Namespace != "default" || len(i.Images) != 1 || i.Unjudged != "" || len(i.ContainersWithoutImage) != 1 {
		t.Fatalf("the inventory is %+v", i)
	}
	found := i.Images[0]
	if got := fmt.Sprint(found.Containers, len(found.SBOMs), len(found.Attestations), len(found.Signatures), len(found.Other)); got != "[one two] 2 0 3 1" {
		t.Errorf("containers, SBOMs, attestations, signatures and others are %s, of %+v", got, found)
	}
	for _, n := range found.Names {
		if n.Result != "verified" || n.Mode != "enforce" || n.Rule == "" || n.Error != "" {
			t.Errorf("of a name it says %+v", n)
		}
	}
	sbom := f.Get(fixture.SBOM).Digest.String()
	for _, r := range append(found.SBOMs, found.Signatures...) {
		if r.Size == 0 || len(r.Subjects) != 1 || r.Digest == f.Get(fixture.SBOMSignature).Digest.String() && r.Subjects[0] != sbom {
			t.Errorf("a referrer is %+v", r)
		}
	}
	var bill struct {
		BOMFormat  string
		Components []struct {
			Name, PURL         string
			ExternalReferences []struct{ Type, URL string }
		}
	}
	if err := json.Unmarshal([]byte(referrers(t, d, "inventory", "--format", "cyclonedx").want(t, 0).stdout), &bill); err != nil {
		t.Fatal(err)
	}
	if bill.BOMFormat != "CycloneDX" || len(bill.Components) != 1 || len(bill.Components[0].ExternalReferences) != 6 || !strings.HasPrefix(bill.Components[0].PURL, "pkg:oci/") {
		t.Errorf("the bill is %+v", bill)
	}
	if n := len(reg.Requests()); n > 0 {
		t.Errorf("%d requests of the registry", n)
	}
	referrers(t, d, "inventory", image).want(t, exitUsage)
	referrers(t, d, "inventory", "--format", "xml").want(t, exitUsage)

	// What is damaged is shown, and told by the exit code.
	if err := os.WriteFile(filepath.Join(d.Dir, "root/io.containerd.content.v1.content/blobs/sha256", f.Get(fixture.Image).Digest.Encoded()), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if i := takeInventory(t, d, exitError); len(i.Images) != 1 || i.Images[0].Error == "" || i.Images[0].Names[0].Error == "" {
		t.Errorf("of a damaged image it says %+v", i.Images)
	}
}

// Without the plugin there is no verdict, and the rest all the same.
func TestInventoryWithoutThePlugin(t *testing.T) {
	reg := startRegistry(t, registry.Olareg)
	image := pushRuled(t, reg, "v1")
	d := startDaemon(t, stock)
	pull(t, d, image.name)
	if i := takeInventory(t, d, 0); len(i.Images) != 1 || i.Images[0].Names[0].Result != "" || !strings.Contains(i.Unjudged, "not active") {
		t.Errorf("the inventory is %+v", i)
	}
}
