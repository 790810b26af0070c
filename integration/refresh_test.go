package integration

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// A pull of an image that is there, and has not changed, changes nothing and costs
// what it costs stock containerd and one listing for each subject.
func TestPullAgainUnchanged(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	again := func(config daemon.Config) map[string]int {
		d := startDaemon(t, config)
		pull(t, d, image)
		before := contents(t, d)
		reg.Reset()
		pull(t, d, image)
		if after := contents(t, d); !sameDigests(before, after) {
			t.Errorf("content changed:\nbefore %v\nafter  %v", before, after)
		}
		wantClean(t, d)
		requests := map[string]int{}
		for _, r := range reg.Requests() {
			requests[r.Method+" "+r.Path]++
		}
		return requests
	}
	want := again(stock)
	// The image's subjects, and at the default depth the referrers that are taken and are
	// no signatures.
	for _, subject := range []string{fixture.Image, fixture.AMD64, fixture.CosignSBOM, fixture.SBOM, fixture.VEX} {
		want["GET /v2/app/referrers/"+f.Get(subject).Digest.String()] = 1
	}
	for _, tags := range []string{"auto", "never"} {
		got := again(active(fmt.Sprintf("cosign_tags = %q\n%s", tags, everything)))
		maps.DeleteFunc(got, func(request string, _ int) bool {
			// Of an image that has no signature at its platform manifest
			// cosign's tag might tell: the price of "auto".
			return tags == "auto" && strings.Contains(request, "/manifests/sha256-")
		})
		if !maps.Equal(got, want) {
			t.Errorf("cosign_tags = %q: requests\n got %v\nwant %v", tags, got, want)
		}
	}
}

// An image that was signed, or got an SBOM, after it was pulled has that after the
// next pull; what the registry lists no longer is kept and marked, or let go by a
// rule that prunes.
func TestPullAgainChanged(t *testing.T) {
	f := loadFixture(t)
	for _, prune := range []bool{false, true} {
		t.Run(fmt.Sprintf("prune = %v", prune), func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			wholeFixture(f, t, reg)
			image := reg.Host + "/app:v1"
			d := startDaemon(t, active(rule(`artifact_types = ["all"]`, fmt.Sprintf("prune = %v", prune))))
			pull(t, d, image)
			first := ls(t, d, image)

			late, err := reg.Attach(testContext(t), "app", f.Get(fixture.Image), "application/vnd.example.late", nil, []byte("late"))
			if err != nil {
				t.Fatal(err)
			}
			if err := reg.DeleteManifest(testContext(t), "app", f.Get(fixture.Notation).Digest); err != nil {
				t.Fatal(err)
			}
			reg.Reset()
			pull(t, d, image)
			read := ls(t, d, image)
			if !has(read, late) {
				t.Errorf("what was attached late is not stored: %+v", read.Referrers)
			}
			if n := reg.Count("GET /v2/app/blobs/"); n != 1 {
				t.Errorf("%d blobs were fetched, want the new one's alone: %v", n, reg.Requests())
			}
			if read.Status != labels.Present || read.Checked.Before(first.Checked) {
				t.Errorf("status %s, checked %s after %s", read.Status, read.Checked, first.Checked)
			}
			if gone := f.Get(fixture.Notation); has(read, gone) == prune {
				t.Errorf("the notation signature is stored: %v", !prune)
			}
			out, err := d.Ctr(testContext(t), "referrers", "ls", image)
			if err != nil {
				t.Fatal(err)
			}
			marks := strings.Count(out, ", no longer listed since ")
			if want := map[bool]int{false: 1, true: 0}[prune]; marks != want {
				t.Errorf("%d referrers are marked as no longer listed, want %d:\n%s", marks, want, out)
			}
			collect(t, d)
			if prune {
				for _, dgst := range contents(t, d) {
					if dgst == f.Get(fixture.Notation).Digest {
						t.Error("what was let go is still stored after a collection")
					}
				}
			} else {
				wantWhole(t, f, d, fixture.Notation)
			}
		})
	}
}

// A registry that fails takes nothing away, even from a rule that prunes.
func TestPullAgainUnknown(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(rule(`artifact_types = ["all"]`, "prune = true")))
	pull(t, d, image)
	before := names(f, ls(t, d, image).Referrers)
	reg.Fail(registry.ReferrersFail(403))
	pull(t, d, image)
	read := ls(t, d, image)
	if read.Status != labels.Unknown {
		t.Errorf("status is %q, want unknown", read.Status)
	}
	wantNames(t, f, read, before...)
	out, err := d.Ctr(testContext(t), "referrers", "ls", image)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "no longer listed") {
		t.Errorf("a registry that failed is taken at its silence:\n%s", out)
	}
}

func has(image *stored.Image, desc ocispec.Descriptor) bool {
	for _, r := range image.Referrers {
		if r.Digest == desc.Digest {
			return true
		}
	}
	return false
}
