package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// Tree, table, JSON and digests show the same referrers, and what is known of each
// subject.
func TestLs(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(everything))
	pull(t, d, image)

	sbom, signature := f.Get(fixture.SBOM).Digest.String(), f.Get(fixture.SBOMSignature).Digest.String()
	tree := referrers(t, d, "ls", image).want(t, 0).stdout
	for _, pattern := range []string{
		`^` + regexp.QuoteMeta(image) + ` \(6 referrers, \d+\.\d KiB\)\n`,
		`├── index ` + f.Get(fixture.Image).Digest.String() + `: present, checked [a-z0-9 ]+ ago`,
		`│   [├└]── application/spdx\+json ` + sbom + ` \(sbom, \d+\.0 B\)`,
		`└── application/vnd.cncf.notary.signature ` + signature + ` \(signature, \d+\.0 B\)`,
		`[├└]── vex/openvex sha256:\w+ \(\d+\.\d \w+\)`,
		`└── linux/arm64 ` + f.Get(fixture.ARM64).Digest.String() + `: unknown, never asked`,
	} {
		if !regexp.MustCompile(pattern).MatchString(tree) {
			t.Errorf("the tree lacks %s:\n%s", pattern, tree)
		}
	}
	table := referrers(t, d, "ls", "--format", "table", image).want(t, 0).stdout
	for _, pattern := range []string{
		`^SUBJECT +STATUS +CHECKED +ARTIFACT TYPE +DIGEST +SIZE +LISTED`,
		`(?m)^linux/amd64 +present +[a-z0-9 ]+ ago +application/spdx\+json +` + sbom + ` +\d+\.0 B +yes`,
		`(?m)^` + sbom[:len("sha256:")+12] + ` +- +- +application/vnd.cncf.notary.signature +` + signature,
		`(?m)^linux/arm64 +unknown +- +- +- +- +-`,
	} {
		if !regexp.MustCompile(pattern).MatchString(table) {
			t.Errorf("the table lacks %s:\n%s", pattern, table)
		}
	}
	var digests []string
	for line := range strings.Lines(referrers(t, d, "ls", "-q", image).want(t, 0).stdout) {
		digests = append(digests, strings.TrimSpace(line))
		if !strings.Contains(tree, line[:len(line)-1]) || !strings.Contains(table, line[:len(line)-1]) {
			t.Errorf("%s is missing from the tree or the table", line)
		}
	}
	if len(digests) != 6 {
		t.Errorf("digests %q", digests)
	}
	read := parse(t, referrers(t, d, "ls", "--format", "json", image).want(t, 0).stdout)
	if want := totalSize(read.Referrers); read.TotalSize != want || want == 0 {
		t.Errorf("the total is %d bytes, want %d", read.TotalSize, want)
	}
	for _, r := range read.Referrers {
		var want int64
		for _, dgst := range f.Content(f.Name(r.Digest))[1:] {
			info, err := d.Client.ContentStore().Info(testContext(t), dgst)
			if err != nil {
				t.Fatal(err)
			}
			want += info.Size
		}
		if r.ContentSize != want {
			t.Errorf("%s has content of %d bytes, want %d", f.Name(r.Digest), r.ContentSize, want)
		}
	}
	// Flags may follow the image.
	parse(t, referrers(t, d, "ls", image, "--format", "json").want(t, 0).stdout)
}

func totalSize(referrers []stored.Referrer) (n int64) {
	for _, r := range referrers { // none of the fixture's is tied twice
		n += r.Size + r.ContentSize + totalSize(r.Referrers)
	}
	return n
}

// What no rule selects is told from what a rule selects and nobody has asked about, and that from
// what was listed and not selected.
func TestLsUnselected(t *testing.T) {
	f := loadFixture(t)
	reg, other := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	if err := f.PushImage(testContext(t), other, "free", "v1"); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, active(strings.ReplaceAll(rule(`artifact_types = ["application/vnd.example.none"]`), `"**"`, `"**/app", "**/never"`)))
	free, asked := other.Host+"/free:v1", reg.Host+"/app:v1"
	pull(t, d, free)
	runCtr(t, d, "images", "tag", free, "example.com/never:v1").want(t, 0)
	status := func(name string) string {
		t.Helper()
		for line := range strings.Lines(referrers(t, d, "ls").want(t, 0).stdout) {
			if f := strings.Fields(line); f[0] == name {
				return f[2] + " " + f[3]
			}
		}
		return ""
	}
	if got := status(free); got != "unselected -" {
		t.Errorf("of an image under no rule: %s", got)
	}
	if got := status("example.com/never:v1"); got != "unknown -" {
		t.Errorf("of one that a rule selects for, and nobody has asked about: %s", got)
	}
	referrers(t, d, "ls", free).want(t, 0).prints(t, ": unselected, never asked")
	referrers(t, d, "ls", "example.com/never:v1").want(t, 0).prints(t, ": unknown, never asked")
	// The registry lists some, of which the rule selects none; the image has names in three
	// repositories, one of which was asked.
	pull(t, d, asked)
	index := f.Get(fixture.Image).Digest.String()
	referrers(t, d, "ls", asked).want(t, 0).prints(t, "index "+index+": unselected in "+reg.Host+"/app, checked ")
	referrers(t, d, "ls", free).want(t, 0).prints(t, ": unselected in "+reg.Host+"/app, checked ")
	read := parse(t, referrers(t, d, "ls", "--format", "json", free).want(t, 0).stdout)
	if !read.Unselected || read.Status != labels.Present || read.Subjects[0].Repository != reg.Host+"/app" || len(read.Repositories) != 3 {
		t.Errorf("JSON has %+v", read)
	}
}

// Of one artifact type, whether something is stored is what ls exits with.
func TestLsArtifactType(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(everything))
	pull(t, d, image)
	r := referrers(t, d, "ls", "--artifact-type", "signatures", "--format", "json", image).want(t, 0)
	// The SBOM's signature is found beneath it.
	wantNames(t, f, parse(t, r.stdout), fixture.CosignSignature, fixture.Notation, fixture.SBOM, fixture.SBOM+"/"+fixture.SBOMSignature)
	q := referrers(t, d, "ls", "-q", "--artifact-type", "signatures", image).want(t, 0).prints(t, f.Get(fixture.SBOMSignature).Digest.String())
	if strings.Contains(q.stdout, f.Get(fixture.SBOM).Digest.String()) {
		t.Errorf("an SBOM is listed as a signature:\n%s", q.stdout)
	}
	r = referrers(t, d, "ls", "--artifact-type", "signatures", "--depth", "1", "--format", "json", image).want(t, 0)
	wantNames(t, f, parse(t, r.stdout), fixture.CosignSignature, fixture.Notation)
	referrers(t, d, "ls", "--artifact-type", "application/vnd.example.none", image).want(t, exitNone, "no referrer that is application/vnd.example.none", "ctr referrers explain "+image)
	reg.Fail(registry.ReferrersFail(403))
	pull(t, d, image)
	referrers(t, d, "ls", "--artifact-type", "sboms", image).want(t, 0)
	referrers(t, d, "ls", "--artifact-type", "application/vnd.example.none", image).want(t, exitUnknown, "not known in full", "ctr referrers fetch "+image)
}

// Without an image all are listed, those as well that no one asked about, and one
// that cannot be read does not hide the others.
func TestLsAll(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	d := startDaemon(t, active(everything))
	if got := strings.Fields(referrers(t, d, "ls").want(t, 0).stdout); len(got) != 8 || got[0] != "NAME" {
		t.Errorf("of no images: %q", got)
	}
	if got := referrers(t, d, "ls", "--format", "json").want(t, 0).stdout; strings.TrimSpace(got) != "[]" {
		t.Errorf("of no images: %q", got)
	}
	wholeFixture(f, t, reg)
	if err := f.PushImage(testContext(t), reg, "never", "asked"); err != nil {
		t.Fatal(err)
	}
	signed := reg.Host + "/app:v1"
	pull(t, d, signed)
	runCtr(t, d, "images", "tag", signed, "example.com/other:v1").want(t, 0)
	out := referrers(t, d, "ls").want(t, 0).stdout
	for _, name := range []string{signed, "example.com/other:v1"} {
		line := `(?m)^` + regexp.QuoteMeta(name) + ` +` + f.Get(fixture.Image).Digest.String() + ` +present in ` + regexp.QuoteMeta(reg.Host+"/app") + ` +[a-z0-9 ]+ ago +2 +1 +1 +1 *$`
		if !regexp.MustCompile(line).MatchString(out) {
			t.Errorf("the table lacks %s:\n%s", line, out)
		}
	}
	if got := referrers(t, d, "ls", "-q").want(t, 0).stdout; got != signed+"\nexample.com/other:v1\n" {
		t.Errorf("names %q", got)
	}
	if got := referrers(t, d, "ls", "--format", "tree").want(t, 0).stdout; strings.Count(got, "├── index ") != 2 {
		t.Errorf("trees:\n%s", got)
	}
	index := f.Get(fixture.Image).Digest
	if err := os.WriteFile(filepath.Join(d.Dir, "root/io.containerd.content.v1.content/blobs/sha256", index.Encoded()), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	arm := reg.Host + "/never@" + f.Get(fixture.ARM64).Digest.String()
	runCtr(t, d, "images", "pull", "--platform", "linux/arm64", arm).want(t, 0)
	r := referrers(t, d, "ls", "--format", "json")
	var list []stored.Image
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || r.code != exitError || len(list) != 3 {
		t.Fatalf("exit code %d, %v in %s", r.code, err, r.stdout)
	}
	for _, image := range list {
		if broken := image.Name != arm; broken && (image.Status != labels.Unknown || !strings.Contains(r.stderr, "image "+image.Name)) || image.Digest == "" {
			t.Errorf("%+v; standard error %s", image, r.stderr)
		}
	}
	if !strings.Contains(r.stderr, "2 of 3 images could not be read") {
		t.Errorf("standard error: %s", r.stderr)
	}
}

// What can be misunderstood is an error of its own, that says what to write.
func TestLsErrors(t *testing.T) {
	d := startDaemon(t, stock)
	for _, tc := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{"ls", "example.com/none:v1"}, exitError, []string{"image example.com/none:v1 is not in namespace default", "`ctr -n default images ls`"}},
		{[]string{"ls", "a", "b"}, exitUsage, []string{"one image at a time"}},
		{[]string{"ls", "--format", "xml"}, exitUsage, []string{`"tree", "table" or "json"`}},
		{[]string{"ls", "-q", "--format", "json", "a"}, exitUsage, []string{"leave out --format"}},
		{[]string{"ls", "--artifact-type", "sboms"}, exitUsage, []string{"--artifact-type and --depth need an image"}},
		{[]string{"ls", "--artifact-type", "sbom", "a"}, exitUsage, []string{`"sbom" is neither a media type nor a set`}},
		{[]string{"ls", "--depth", "-1", "a"}, exitUsage, []string{"out of range"}},
		{[]string{"ls", "--bogus"}, exitUsage, []string{"ctr referrers ls --help"}},
		{[]string{"bogus"}, exitUsage, []string{`command "bogus" is not known`, "ctr referrers --help"}},
		{[]string{"cat"}, exitUsage, []string{"ctr images ls"}},
		{[]string{"explain"}, exitUsage, []string{"ctr images ls"}},
		{[]string{"fetch"}, exitUsage, []string{"ctr images ls"}},
	} {
		referrers(t, d, tc.args...).want(t, tc.code, tc.says...)
	}
}
