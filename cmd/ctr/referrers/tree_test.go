package referrers

import (
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

var (
	now  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	root = digest.FromString("root")
	node = digest.FromString("node")
)

// hostile is an image two of whose referrers tell a terminal what to do.
func hostile() *stored.Image {
	sign := map[string]string{"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1"}
	return &stored.Image{
		Name: "example.com/app:v1", Digest: root, Status: labels.Present, Checked: now.Add(-3 * time.Minute),
		Subjects: []stored.Subject{
			{Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: root}, Status: labels.Present, Checked: now.Add(-3 * time.Minute)},
			{Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: node, Platform: &ocispec.Platform{OS: "linux", Architecture: "amd\x1b[2J"}}, Status: labels.Unknown},
		},
		Referrers: []stored.Referrer{
			{Digest: digest.FromString("a"), Subject: root, ArtifactType: "application/vnd.dev.sigstore.bundle.v0.3+json", Annotations: sign, Size: 1000, ContentSize: 24},
			{Digest: digest.FromString("b"), Subject: root, ArtifactType: "application/spdx+json", Size: 10, Unlisted: now.Add(-time.Hour), Referrers: []stored.Referrer{
				{Digest: digest.FromString("c"), Subject: digest.FromString("b"), ArtifactType: "x/\x1b]0;y\a\u202e\n", Size: 1},
			}},
			{Digest: digest.FromString("d"), Subject: node}, // damaged
		},
	}
}

func TestPrintTree(t *testing.T) {
	var out strings.Builder
	if err := printTree(&out, hostile(), now); err != nil {
		t.Fatal(err)
	}
	want := `example.com/app:v1 (4 referrers, 1.0 KiB)
├── index <root>: present, checked 3 minutes ago
│   ├── application/vnd.dev.sigstore.bundle.v0.3+json <a> (signature, 1.0 KiB)
│   └── application/spdx+json <b> (sbom, 10.0 B), no longer listed since 2026-11-23T11:00:00Z
│       └── x/?]0;y??? <c> (1.0 B)
└── linux/amd?[2J <node>: unknown, never asked
    └── - <d> (0.0 B)
`
	if got := named(out.String()); got != want {
		t.Errorf("the tree is\n%s\nwant\n%s", got, want)
	}
}

// A subject whose referrers nothing selected is told from one that was never asked about, and
// each status names its repository where several have the image.
func TestPrintTreeOfUnselected(t *testing.T) {
	image := hostile()
	image.Referrers, image.Subjects[0].Unselected = nil, true
	image.Repositories, image.Subjects[0].Repository = []string{"a.example.com/app", "example.com/app"}, "a.example.com/app"
	never := &stored.Image{Name: "example.com/never:v1", Unselected: true, Subjects: []stored.Subject{{Descriptor: ocispec.Descriptor{Digest: node}, Status: labels.Unknown}}}
	var out strings.Builder
	for _, i := range []*stored.Image{image, never} {
		if err := printTree(&out, i, now); err != nil {
			t.Fatal(err)
		}
	}
	want := `example.com/app:v1
├── index <root>: unselected in a.example.com/app, checked 3 minutes ago
└── linux/amd?[2J <node>: unknown, never asked
example.com/never:v1
└── manifest <node>: unselected, never asked
`
	if got := named(out.String()); got != want {
		t.Errorf("the trees are\n%s\nwant\n%s", got, want)
	}
}

// named puts names in place of the digests of single letters, root and node.
func named(s string) string {
	for _, name := range []string{"root", "node", "a", "b", "c", "d"} {
		dgst := digest.FromString(name)
		s = strings.ReplaceAll(s, dgst.String(), "<"+name+">")
		s = strings.ReplaceAll(s, short(dgst), "<short "+name+">")
	}
	return s
}

func TestPrintTables(t *testing.T) {
	for name, tc := range map[string]struct {
		print func(*strings.Builder) error
		want  []string
	}{
		"referrers": {func(w *strings.Builder) error { return printReferrers(w, hostile(), now) }, []string{
			"SUBJECT STATUS CHECKED ARTIFACT TYPE DIGEST SIZE LISTED",
			"index present 3 minutes ago application/vnd.dev.sigstore.bundle.v0.3+json <a> 1.0 KiB yes",
			"index present 3 minutes ago application/spdx+json <b> 10.0 B not since 2026-11-23T11:00:00Z",
			"<short b> - - x/?]0;y??? <c> 1.0 B yes",
			"linux/amd?[2J unknown - - <d> 0.0 B yes",
			"total - - - 4 1.0 KiB -",
		}},
		"a subject without": {func(w *strings.Builder) error {
			image := hostile()
			image.Referrers = nil
			return printReferrers(w, image, now)
		}, []string{
			"SUBJECT STATUS CHECKED ARTIFACT TYPE DIGEST SIZE LISTED",
			"index present 3 minutes ago - - - -", "linux/amd?[2J unknown - - - - -",
		}},
		"images": {func(w *strings.Builder) error {
			never := &stored.Image{Name: "example.com/never:v1", Digest: node, Status: labels.Unknown}
			unruled := &stored.Image{Name: "example.com/unruled:v1", Digest: node, Status: labels.Unknown, Unselected: true}
			none := hostile()
			none.Referrers, none.Unselected, none.Repositories = nil, true, []string{"a.example.com/app", "example.com/app"}
			none.Subjects[0].Repository = "a.example.com/app"
			return printImages(w, []*stored.Image{hostile(), never, unruled, none}, now)
		}, []string{
			"NAME DIGEST STATUS CHECKED SIGNATURES ATTESTATIONS SBOMS OTHER",
			"example.com/app:v1 <root> present 3 minutes ago 1 0 1 1", // not the one beneath the SBOM
			"example.com/never:v1 <node> unknown - 0 0 0 0",
			"example.com/unruled:v1 <node> unselected - 0 0 0 0",
			"example.com/app:v1 <root> unselected in a.example.com/app 3 minutes ago 0 0 0 0",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := tc.print(&out); err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(named(out.String())) {
				got = append(got, strings.Join(strings.Fields(line), " "))
			}
			if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("the table is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}
