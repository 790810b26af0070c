package artifact

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var fuzzSeeds = []string{
	``, `null`, `[]`, `{"manifests":null}`, `{"manifests":[{}]} `, `{"manifests":[{}]}{}`,
	`{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[{"mediaType":"` + manifestType + `","digest":"sha256:x","size":-1,"data":"bGlhcg==","urls":["http://x"],"platform":{"os":"linux"}}]}`,
	`{"mediaType":"` + manifestType + `","config":{"mediaType":"` + ocispec.MediaTypeImageConfig + `"},"layers":[{"mediaType":"application/vnd.dsse.envelope.v1+json"},{}],"subject":{"digest":"sha256:x"},"annotations":{"a":"b"}}`,
	`{"layers":[{},{},{},{}],"manifests":[{},{},{},{}],"LAYERS":[]}`,
}

func FuzzParseIndex(f *testing.F) {
	for _, seed := range fuzzSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		index, err := ParseIndex(data)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("error %v", err)
			}
			return
		}
		var list []ocispec.Descriptor
		for _, e := range index.Entries {
			list = append(list, e.Descriptor)
		}
		wantPlain(t, list)
	})
}

func FuzzParse(f *testing.F) {
	types := []string{manifestType, indexType, images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2ManifestList, "text/spdx"}
	for i, seed := range fuzzSeeds {
		f.Add([]byte(seed), uint(i))
	}
	f.Fuzz(func(t *testing.T, data []byte, i uint) {
		mediaType := types[i%uint(len(types))]
		m, err := Parse(data, mediaType)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsResourceExhausted(err) {
				t.Errorf("error %v", err)
			}
			return
		}
		if again, err := Parse(data, mediaType); err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("read anew: %+v, %v; before: %+v", again, err, m)
		}
		if m.MediaType != mediaType {
			t.Errorf("media type %q of %q", m.MediaType, mediaType)
		}
		if len(m.Manifests) > MaxDescriptors || len(m.Blobs) > MaxDescriptors+1 { // the config is one more
			t.Errorf("%d manifests, %d blobs", len(m.Manifests), len(m.Blobs))
		}
		if index := IsIndex(mediaType); index && len(m.Blobs) > 0 || !index && len(m.Manifests) > 0 {
			t.Errorf("%q with %d manifests and %d blobs", mediaType, len(m.Manifests), len(m.Blobs))
		}
		wantPlain(t, m.Manifests)
		if len(m.Blobs) > 0 {
			wantPlain(t, m.Blobs[1:]) // past the config
		}
	})
}

// FuzzStrictReader holds the strict reader against a second one: a digest vouches for
// bytes, so that what is taken must not have another reading.
func FuzzStrictReader(f *testing.F) {
	for i, seed := range slices.Concat(fuzzSeeds, strictSeeds()) {
		f.Add([]byte(seed), uint(i))
	}
	f.Fuzz(func(t *testing.T, data []byte, i uint) {
		holdsAgainstSecondReader(t, data, toldTypes[i%uint(len(toldTypes))])
	})
}

// strictSeeds are the ways to write one document for two readers.
func strictSeeds() []string {
	const (
		honest = `"schemaVersion":2,"layers":[{"mediaType":"text/spdx","digest":"sha256:x","size":7,"annotations":{"dev.sigstore.bundle.predicateType":"p"}}],"config":{"mediaType":"a/b"},"subject":{"digest":"sha256:y"},"annotations":{"a":"b"}`
		list   = `"schemaVersion":2,"manifests":[{"mediaType":"text/spdx","digest":"sha256:x","size":7,"artifactType":"a","annotations":{"dev.sigstore.bundle.predicateType":"p"}},{"digest":"sha256:y"}]`
		deep   = 10_000 // as many levels as either reader takes
	)
	seeds := []string{
		`{` + honest + `}`, `{` + list + `}`, "\ufeff{" + list + "}", `{` + list + `}{}`, `{` + list + "}\x00", `[{` + list + `}]`,
		`{` + list + `,` + list + `}`, `{` + honest + `,` + honest + `}`,
		`{"layers":[{"layers":[{"digest":"a"}],"digest":"b"}],"x":{"layers":[{"digest":"c"}]}}`, // copies of a field further down
		`{"manifests":[{"manifests":[{"digest":"a"}],"digest":"b","Manifests":1}]}`,
		`{"layers":[{"annotations":{"a":"` + strings.Repeat("x", MaxAnnotations) + `"}}]}`,
		`{"layers":[{"annotations":{"a":"` + strings.Repeat("x", MaxAnnotations) + `","a":""}}]}`,
		`{"layers":[{"annotations":["` + strings.Repeat("x", MaxAnnotations) + `"]}]}`,
		`{"manifests":[{"annotations":"` + strings.Repeat("x", MaxAnnotations) + `"},{"annotations":{"\ud800":"` + strings.Repeat("x", MaxAnnotations) + `"}}]}`,
		`{"layers":[{"annotations":{"dev.sigstore.bundle.predicateType":"` + strings.Repeat("x", MaxTelling+1) + `","dev.sigstore.bundle.content":"message-signature"}}]}`,
		`{"manifests":[` + strings.Repeat(`{"digest":"a"},`, MaxDescriptors) + `{"digest":"b","digest":"c"}]}`,
	}
	for _, levels := range []int{deep - 3, deep - 2, deep - 1, deep} {
		seeds = append(seeds,
			`{"x":`+strings.Repeat("[", levels)+strings.Repeat("]", levels)+`,"layers":[]}`,
			`{"manifests":[{"x":`+strings.Repeat(`{"":`, levels)+"0"+strings.Repeat("}", levels)+`}]}`)
	}
	for _, name := range documentFields {
		for _, other := range spellings(name) {
			seeds = append(seeds, fmt.Sprintf(`{"%s":[{"digest":"a"}],"%s":[{"digest":"b"}]}`, name, other))
		}
		for _, value := range oddValues {
			seeds = append(seeds, fmt.Sprintf(`{"%s":%s}`, name, value))
		}
	}
	for _, name := range descriptorFields {
		for _, other := range spellings(name) {
			seeds = append(seeds, fmt.Sprintf(`{"layers":[{"%s":"a","%s":"b"}]}`, name, other))
		}
		for _, value := range oddValues {
			seeds = append(seeds, fmt.Sprintf(`{"manifests":[{"%s":%s}]}`, name, value))
		}
	}
	return seeds
}

// wantPlain fails where a descriptor kept what strangers must not choose.
func wantPlain(t *testing.T, list []ocispec.Descriptor) {
	t.Helper()
	if len(list) > MaxDescriptors {
		t.Errorf("%d descriptors", len(list))
	}
	for _, d := range list {
		if len(d.Data) > MaxInline || d.URLs != nil || d.Platform != nil {
			t.Errorf("kept long inline data, URLs or platform of %+v", d)
		}
	}
}
