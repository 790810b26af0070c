package integration

import (
	"encoding/json"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/transfer/image"
	oci "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// onEverything is what the whole fixture gives a pull of linux/amd64.
var onEverything = []string{fixture.CosignSignature, fixture.CosignSBOM, fixture.Notation, fixture.SBOM, fixture.SBOM + "/" + fixture.SBOMSignature, fixture.VEX}

// wantKept collects, and fails where the image has lost a referrer or a blob of one.
func wantKept(t *testing.T, f *fixture.Fixture, d *daemon.Daemon, image string, want ...string) {
	t.Helper()
	collect(t, d)
	wantNames(t, f, ls(t, d, image), slices.Clone(want)...)
	referrerContent(t, d, "default", image)
	for _, name := range want {
		wantWhole(t, f, d, path.Base(name))
	}
}

// wantNothing fails where a namespace still has content.
func wantNothing(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	if left := contents(t, d); len(left) > 0 {
		t.Errorf("content was left: %v", left)
	}
	wantClean(t, d)
}

// An image under several names keeps its referrers until the last of them goes; a
// tag and a rename take them along.
func TestNamesOfOneImage(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	image := reg.Host + "/app:v1"
	pull(t, d, image)
	ctr(t, d, "images", "tag", image, "example.com/copied:v1")
	ctr(t, d, "images", "rm", "--sync", image)
	wantKept(t, f, d, "example.com/copied:v1", onEverything...)
	ctr(t, d, "images", "tag", "--local", "example.com/copied:v1", "example.com/renamed:v1")
	ctr(t, d, "images", "rm", "--sync", "example.com/copied:v1")
	wantKept(t, f, d, "example.com/renamed:v1", onEverything...)
	ctr(t, d, "images", "rm", "--sync", "example.com/renamed:v1")
	wantNothing(t, d)
}

// Two images of the same content in two repositories share subjects and referrers:
// one keeps what the other leaves.
func TestImagesThatShareTheirSubjects(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	if err := f.Push(testContext(t), reg, "other", "v1"); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, active(everything))
	for _, image := range []string{"/app:v1", "/other:v1"} {
		pull(t, d, reg.Host+image)
	}
	ctr(t, d, "images", "rm", "--sync", reg.Host+"/app:v1")
	wantKept(t, f, d, reg.Host+"/other:v1", onEverything...)
	ctr(t, d, "images", "rm", "--sync", reg.Host+"/other:v1")
	wantNothing(t, d)
}

// A repository that does not list what another does takes nothing from it, even
// where its rule prunes.
func TestRepositoryWithoutReferrersPrunesNoOthers(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	if err := f.PushImage(testContext(t), reg, "bare", "v1"); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, active(rule(`artifact_types = ["all"]`, "prune = true")))
	pull(t, d, reg.Host+"/app:v1")
	pull(t, d, reg.Host+"/bare:v1")
	wantKept(t, f, d, reg.Host+"/app:v1", onEverything...)
	if read := ls(t, d, reg.Host+"/app:v1"); read.Status != labels.Present {
		t.Errorf("status is %q of an image that has referrers, in one repository of two", read.Status)
	}
}

// A platform manifest that is an image by itself keeps its own referrers when the
// index that named it goes, and those of the index go.
func TestManifestOutlivesItsIndex(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	index, manifest := reg.Host+"/app:v1", reg.Host+"/app@"+f.Get(fixture.AMD64).Digest.String()
	pull(t, d, index)
	pull(t, d, manifest)
	ctr(t, d, "images", "rm", "--sync", index)
	wantKept(t, f, d, manifest, fixture.SBOM, fixture.SBOM+"/"+fixture.SBOMSignature, fixture.VEX)
	if have := contents(t, d); slices.Contains(have, f.Get(fixture.CosignSignature).Digest) {
		t.Error("a referrer of the index outlived it")
	}
	ctr(t, d, "images", "rm", "--sync", manifest)
	wantNothing(t, d)
}

// Two indexes that name the same manifest, and two referrers with the same blob.
func TestImagesThatShareAManifestAndABlob(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	ctx := testContext(t)
	amd := f.Get(fixture.AMD64)
	data, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{
		{MediaType: amd.MediaType, Digest: amd.Digest, Size: amd.Size, Platform: &amd64},
	}})
	if err != nil {
		t.Fatal(err)
	}
	second, err := reg.PushManifest(ctx, "app", "v2", ocispec.MediaTypeImageIndex, data)
	if err != nil {
		t.Fatal(err)
	}
	shared := []byte("the same SBOM")
	var attached []ocispec.Descriptor
	for _, subject := range []ocispec.Descriptor{f.Get(fixture.Image), second} {
		desc, err := reg.Attach(ctx, "app", subject, "application/vnd.example.shared", nil, shared)
		if err != nil {
			t.Fatal(err)
		}
		attached = append(attached, desc)
	}
	d := startDaemon(t, active(everything))
	pull(t, d, reg.Host+"/app:v1")
	reg.Reset()
	pull(t, d, reg.Host+"/app:v2")
	if n := reg.Count("GET /v2/app/blobs/"); n != 0 {
		t.Errorf("%d blobs were fetched that another image had brought", n)
	}
	ctr(t, d, "images", "rm", "--sync", reg.Host+"/app:v1")
	read := ls(t, d, reg.Host+"/app:v2")
	if !has(read, attached[1]) || has(read, attached[0]) {
		t.Errorf("stored are %+v", read.Referrers)
	}
	if have := contents(t, d); !slices.Contains(have, digest.FromBytes(shared)) || slices.Contains(have, attached[0].Digest) {
		t.Error("the shared blob is gone, or the other image's referrer is not")
	}
	wantWhole(t, f, d, fixture.SBOM)
	ctr(t, d, "images", "rm", "--sync", reg.Host+"/app:v2")
	wantNothing(t, d)
}

// A client's lease keeps an image's referrers as it keeps the image, and not a
// moment longer.
func TestExpiringLease(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	ctx := testContext(t)
	lease, err := d.Client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	ref := reg.Host + "/app:v1"
	src, err := oci.NewOCIRegistry(ctx, ref, oci.WithDefaultScheme("http"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Client.Transfer(leases.WithLease(ctx, lease.ID), src, image.NewStore(ref, image.WithPlatforms(amd64))); err != nil {
		t.Fatal(err)
	}
	before := contents(t, d)
	ctr(t, d, "images", "rm", "--sync", ref)
	if left := contents(t, d); !sameDigests(before, left) {
		t.Errorf("the lease did not keep everything:\nbefore %v\nafter  %v", before, left)
	}
	for ctx := testContext(t); len(contents(t, d)) > 0; {
		if ctx.Err() != nil {
			t.Fatalf("the lease expired, and content is left: %v", contents(t, d))
		}
		time.Sleep(200 * time.Millisecond)
		collect(t, d)
	}
}

// Each namespace has its own image with its own referrers, whether content is
// shared between them or not; a copy by archive takes them along as a pull does.
func TestNamespaces(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	for _, sharing := range []string{"shared", "isolated"} {
		t.Run(sharing, func(t *testing.T) {
			d := startDaemon(t, active(everything+"[plugins.\"io.containerd.metadata.v1.bolt\"]\ncontent_sharing_policy = \""+sharing+"\"\n"))
			pull(t, d, image)
			ctr(t, d, "-n", "pulled", "images", "pull", "--platform", "linux/amd64", image)
			archive := t.TempDir() + "/image.tar"
			export(t, d, archive, "--platform", "linux/amd64", archive, image)
			ctr(t, d, "-n", "copied", "images", "import", "--platform", "linux/amd64", archive)
			ctr(t, d, "images", "rm", "--sync", image)
			collect(t, d)
			for _, ns := range []string{"pulled", "copied"} {
				wantNames(t, f, parse(t, ctr(t, d, "-n", ns, "referrers", "ls", "--format", "json", image)), slices.Clone(onEverything)...)
				referrerContent(t, d, ns, image)
				ctr(t, d, "-n", ns, "images", "rm", "--sync", image)
			}
			for _, ns := range []string{"default", "pulled", "copied"} {
				ctx := namespaces.WithNamespace(testContext(t), ns)
				if err := d.Client.ContentStore().Walk(ctx, func(info content.Info) error {
					t.Errorf("%s is left in namespace %s", info.Digest, ns)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
