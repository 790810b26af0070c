package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An index.json that can be read in two ways is refused as a whole: what verified the
// archive may have read it in the other. Nothing of the archive stays, and no image
// changes.
func TestImportReadsTheIndexStrictly(t *testing.T) {
	const image = "example.com/app:v1"
	good := newLayout(t)
	index, _ := good.image(image)
	d := startDaemon(t, active(everything))
	imported(t, d, good.write(), image, index.Digest)
	before := contents(t, d)

	bad := newLayout(t)
	evil, _ := bad.image("evil")
	sbom := bad.sbom(evil, "sbom")
	entry := func(desc ocispec.Descriptor, annotations string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%s}}`, desc.MediaType, desc.Digest, desc.Size, annotations)
	}
	name := fmt.Sprintf(`%q:%q`, images.AnnotationImageName, image)
	named, carried := entry(evil, name), entry(sbom, fmt.Sprintf("%q:%q", images.AnnotationManifestSubject, evil.Digest))
	for _, tc := range []struct{ name, index, says string }{
		{"the list of manifests twice", `{"schemaVersion":2,"manifests":[],"manifests":[` + named + `]}`, "twice"},
		{"the list of manifests in another case", `{"schemaVersion":2,"manifests":[],"Manifests":[` + named + `]}`, `"Manifests" is not spelt "manifests"`},
		{"a digest twice", `{"schemaVersion":2,"manifests":[` + strings.Replace(named, `"size"`, fmt.Sprintf(`"digest":%q,"size"`, index.Digest), 1) + `]}`, "twice"},
		{"a digest in another case", `{"schemaVersion":2,"manifests":[` + strings.Replace(named, `"size"`, fmt.Sprintf(`"DIGEST":%q,"size"`, index.Digest), 1) + `]}`, `"DIGEST" is not spelt "digest"`},
		{"a name twice", `{"schemaVersion":2,"manifests":[` + entry(evil, `"`+images.AnnotationImageName+`":"example.com/other:v1",`+name) + `]}`, images.AnnotationImageName},
		{"annotations twice", `{"schemaVersion":2,"manifests":[` + strings.Replace(named, `"annotations"`, `"annotations":{},"annotations"`, 1) + `]}`, "twice"},
		{"a subject twice", `{"schemaVersion":2,"manifests":[` + named + `,` + strings.Replace(carried, `}}`, fmt.Sprintf(",%q:%q}}", images.AnnotationManifestSubject, digest.FromString("other")), 1) + `]}`, images.AnnotationManifestSubject},
		{"a platform's field twice", `{"schemaVersion":2,"manifests":[` + strings.Replace(named, `"size"`, `"platform":{"os":"linux","os":"windows","architecture":"amd64"},"size"`, 1) + `]}`, "platform"},
		{"an entry that is no object", `{"schemaVersion":2,"manifests":[` + named + `,1]}`, "entry 2"},
		{"invalid UTF-8 in a name", `{"schemaVersion":2,"manifests":[` + entry(evil, `"`+images.AnnotationImageName+`":"example.com/app:v1`+"\xff"+`"`) + `]}`, "UTF-8"},
		{"invalid UTF-8 in an unknown field", `{"schemaVersion":2,"x":"` + "\xff" + `","manifests":[` + named + `]}`, "UTF-8"},
		{"another index behind it", `{"schemaVersion":2,"manifests":[]}{"schemaVersion":2,"manifests":[` + named + `]}`, "data after the end"},
		{"bytes behind it", `{"schemaVersion":2,"manifests":[` + named + `]}x`, "data after the end"},
		{"an image manifest's fields", `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","manifests":[` + named + `]}`, "not an image index"},
		{"no list of manifests", `{"schemaVersion":2}`, "no manifests"},
		{"an entry behind a thousand others with its digest twice", `{"schemaVersion":2,"manifests":[` + strings.Repeat(carried+",", 1000) + strings.Replace(named, `"size"`, fmt.Sprintf(`"digest":%q,"size"`, index.Digest), 1) + `]}`, "digest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, flags := range [][]string{nil, {"--index-name", "example.com/whole:v1"}} {
				_, err := d.Ctr(testContext(t), append(append([]string{"images", "import", "--platform", "linux/amd64"}, flags...), bad.writeRaw([]byte(tc.index)))...)
				wantError(t, err, "index.json of the archive", tc.says)
				collect(t, d)
				if after := contents(t, d); !sameDigests(before, after) {
					t.Errorf("content was %v, is %v", before, after)
				}
				wantRecord(t, d, image, index.Digest)
				wantClean(t, d)
			}
		})
	}
	// The same with nothing wrong replaces the image, as any import does.
	data := []byte(`{"schemaVersion":2,"manifests":[` + named + `,` + carried + `]}`)
	imported(t, d, bad.writeRaw(data), image, evil.Digest)
	if read := ls(t, d, image); len(read.Referrers) != 1 || read.Referrers[0].Digest != sbom.Digest {
		t.Errorf("tied are %+v", read.Referrers)
	}
	removed(t, d)
}
