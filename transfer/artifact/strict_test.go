package artifact

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// second is what encoding/json reads of a document: the reader that most of the field
// uses, which takes the last of two names and any spelling of one.
type second struct {
	SchemaVersion int                `json:"schemaVersion"`
	MediaType     string             `json:"mediaType"`
	ArtifactType  string             `json:"artifactType"`
	Config        *secondDescriptor  `json:"config"`
	Subject       *secondDescriptor  `json:"subject"`
	Layers        []secondDescriptor `json:"layers"`
	Blobs         []secondDescriptor `json:"blobs"`
	Manifests     []secondDescriptor `json:"manifests"`
	Annotations   map[string]string  `json:"annotations"`
}

// secondIndex is a listing; what is wrong in an entry is the entry's own.
type secondIndex struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []json.RawMessage `json:"manifests"`
}

type secondDescriptor struct {
	MediaType    string          `json:"mediaType"`
	ArtifactType string          `json:"artifactType"`
	Digest       string          `json:"digest"`
	Size         int64           `json:"size"`
	Annotations  json.RawMessage `json:"annotations"` // of any length
}

// holdsAgainstSecondReader fails where the strict reader takes a document, or an entry of
// a listing, that encoding/json reads otherwise or not at all. It reports whether any was
// taken.
func holdsAgainstSecondReader(t *testing.T, data []byte, mediaType string) (taken bool) {
	t.Helper()
	if m, err := Parse(data, mediaType); err == nil {
		taken = true
		var want second
		if err := json.Unmarshal(data, &want); err != nil {
			t.Errorf("encoding/json: %v", err)
			return taken
		}
		sameManifest(t, m, &want, mediaType)
	}
	index, err := ParseIndex(data)
	if err != nil {
		return taken
	}
	var want secondIndex
	if err := json.Unmarshal(data, &want); err != nil {
		t.Errorf("encoding/json of a listing: %v", err)
		return taken
	}
	if want.SchemaVersion != 0 && want.SchemaVersion != 2 || want.MediaType != "" && want.MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("a listing of schemaVersion %d and type %q", want.SchemaVersion, want.MediaType)
	}
	if n := min(len(want.Manifests), MaxDescriptors); len(index.Entries) != n || index.More != (len(want.Manifests) > n) {
		t.Errorf("%d entries, more: %t, encoding/json reads %d", len(index.Entries), index.More, len(want.Manifests))
		return taken
	}
	for i, entry := range index.Entries {
		if entry.Err != nil {
			continue
		}
		taken = true
		var desc secondDescriptor
		if err := json.Unmarshal(want.Manifests[i], &desc); err != nil {
			t.Errorf("encoding/json of entry %d: %v", i, err)
			continue
		}
		sameDescriptor(t, fmt.Sprint("entry ", i), entry.Descriptor, desc)
	}
	return taken
}

func sameManifest(t *testing.T, m *Manifest, want *second, mediaType string) {
	t.Helper()
	switch {
	case mediaType != "":
	case want.MediaType != "":
		mediaType = want.MediaType
	case want.Manifests != nil:
		mediaType = indexType
	}
	if mediaType != "" && m.MediaType != mediaType || want.MediaType != "" && want.MediaType != m.MediaType {
		t.Errorf("media type %q, encoding/json reads %q", m.MediaType, want.MediaType)
	}
	if want.SchemaVersion != 0 && want.SchemaVersion != 2 {
		t.Errorf("encoding/json reads schemaVersion %d", want.SchemaVersion)
	}
	artifactType := want.ArtifactType
	if artifactType == "" && want.Config != nil {
		artifactType = want.Config.MediaType
		if len(want.Layers) > 0 {
			if legacy := cosignType(artifactType, []ocispec.Descriptor{{MediaType: want.Layers[0].MediaType}}); legacy != "" {
				artifactType = legacy
			}
		}
	}
	if m.ArtifactType != artifactType {
		t.Errorf("artifact type %q, encoding/json reads %q", m.ArtifactType, artifactType)
	}
	if !maps.Equal(m.Annotations, want.Annotations) {
		t.Errorf("annotations %q, encoding/json reads %q", m.Annotations, want.Annotations)
	}
	if (m.Subject == nil) != (want.Subject == nil) || m.HasConfig != (want.Config != nil) {
		t.Errorf("subject %v and config: %t, encoding/json reads %v and %v", m.Subject, m.HasConfig, want.Subject, want.Config)
		return
	}
	if m.Subject != nil {
		sameDescriptor(t, "subject", *m.Subject, *want.Subject)
	}
	if m.HasConfig {
		sameDescriptor(t, "config", m.Blobs[0], *want.Config)
	}
	for _, list := range []struct {
		name string
		got  []ocispec.Descriptor
		want []secondDescriptor
	}{
		{"layer", m.Layers(), slices.Concat(want.Layers, want.Blobs)},
		{"manifest", m.Manifests, want.Manifests},
	} {
		if len(list.got) != len(list.want) {
			t.Errorf("%d times %s, encoding/json reads %d", len(list.got), list.name, len(list.want))
			continue
		}
		for i := range list.got {
			sameDescriptor(t, fmt.Sprint(list.name, " ", i), list.got[i], list.want[i])
		}
	}
}

func sameDescriptor(t *testing.T, what string, got ocispec.Descriptor, want secondDescriptor) {
	t.Helper()
	if got.MediaType != want.MediaType || got.ArtifactType != want.ArtifactType || got.Digest.String() != want.Digest || got.Size != want.Size {
		t.Errorf("%s is %q, %q, %q of size %d, encoding/json reads %q, %q, %q, %d", what,
			got.MediaType, got.ArtifactType, got.Digest, got.Size, want.MediaType, want.ArtifactType, want.Digest, want.Size)
	}
	telling := map[string]string{} // what is kept of the annotations
	if len(want.Annotations) > MaxAnnotations {
		if err := json.Unmarshal(want.Annotations, new(map[string]json.RawMessage)); err != nil {
			t.Errorf("%s: encoding/json of its annotations: %v", what, err)
		}
	} else if len(want.Annotations) > 0 {
		var all map[string]string
		if err := json.Unmarshal(want.Annotations, &all); err != nil {
			t.Errorf("%s: encoding/json of its annotations: %v", what, err)
			return
		}
		for _, key := range Annotations {
			if text, ok := all[key]; ok {
				telling[key] = text
			}
			if len(all[key]) > MaxTelling { // then none is
				telling = map[string]string{}
				break
			}
		}
	}
	if !maps.Equal(got.Annotations, telling) {
		t.Errorf("%s has the annotations %q, encoding/json reads %q", what, got.Annotations, telling)
	}
}

// document types that a reader is told, "" for what the document says itself.
var toldTypes = []string{"", manifestType, indexType, MediaTypeArtifactManifest, "application/vnd.docker.distribution.manifest.v2+json"}

// spellings of a name that some readers take for it, and some for another.
func spellings(name string) []string {
	escaped := fmt.Sprintf(`\u%04x%s`, name[0], name[1:])
	return []string{
		name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], escaped, strings.ToUpper(escaped[:2]) + escaped[2:],
		strings.ReplaceAll(name, "s", "\u017f"), strings.ReplaceAll(name, "s", `\u017f`), strings.ReplaceAll(name, "s", "S"),
		strings.ReplaceAll(name, "k", "\u212a"), name + "\u0000", " " + name, name + `\u0000`, name + "\xff", name + `\ud800`, name + `\udc00\ud800`, "",
	}
}

// values that readers disagree about, as the value of any field.
var oddValues = []string{
	`null`, `true`, `""`, `"a"`, `"\u0061"`, `"\/"`, `"\ud83d\ude00"`, `"\ud800"`, `"\ud800\u0041"`, "\"\xff\"", "\"\u2028\"", "\"\x00\"", `"\u0000"`, "\"\xed\xa0\x80\"",
	`0`, `1`, `2`, `2.0`, `1.0`, `1e3`, `20e-1`, `-0`, `-1`, `01`, `+1`, `.5`, `1.`, `0x1`, `NaN`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775808`,
	`18446744073709551616`, `1e400`, `"1"`, `[]`, `{}`, `[null]`, `[{}]`, `[{},{}]`, `[[]]`, `{"a":1,"a":2}`, `{"a":"b"}`, `{"a":null}`, `{"a":1}`, `{"A":"b","a":"c"}`,
	`[{"digest":"a"},null]`, `[{"digest":"a","digest":"b"}]`, `[{"Digest":"b"}]`, `{"digest":"a","size":1}`, `{"digest":"a","DIGEST":"b"}`, `{"digest":null,"size":null}`,
	`"` + manifestType + `"`, `"` + indexType + `"`, `"` + ocispec.MediaTypeImageConfig + `"`, `{"mediaType":"` + ocispec.MediaTypeImageConfig + `"}`,
	`[{"mediaType":"application/vnd.dsse.envelope.v1+json"}]`, `{"dev.sigstore.bundle.predicateType":"p"}`, `{"\u0064ev.sigstore.bundle.predicateType":"p","DEV.sigstore.bundle.predicateType":"q"}`,
	`{"dev.sigstore.bundle.predicateType":"p","dev.sigstore.bundle.predicateType":"q"}`, `{"dev.sigstore.bundle.predicateType":null}`,
}

var (
	documentFields   = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "blobs", "manifests", "subject", "annotations", "unknown"}
	descriptorFields = []string{"mediaType", "artifactType", "digest", "size", "annotations", "data", "urls", "platform", "unknown"}
)

// oddDocument makes a document that is odd in few places: most of its fields are honest,
// lest nothing be taken.
func oddDocument(r *rand.Rand) string {
	oneOf := func(list []string) string { return list[r.IntN(len(list))] }
	object := func(fields []string, honest func(string) string) string {
		var members []string
		for range r.IntN(5) {
			field := oneOf(fields)
			name, value := field, honest(field)
			if r.IntN(8) == 0 {
				name = oneOf(spellings(field))
			}
			if r.IntN(8) == 0 {
				value = oneOf(oddValues)
			}
			member := `"` + name + `":` + value
			members = append(members, member)
			if r.IntN(30) == 0 {
				members = append(members, member)
			}
		}
		return `{` + strings.Join(members, ",") + `}`
	}
	annotations := func() string {
		return object([]string{Annotations[0], Annotations[1], "org.opencontainers.image.created"}, func(string) string { return oneOf([]string{`"p"`, `""`, `"message-signature"`}) })
	}
	descriptor := func() string {
		return object(descriptorFields, func(field string) string {
			switch field {
			case "size":
				return fmt.Sprint(r.IntN(100))
			case "annotations":
				return annotations()
			case "urls", "platform":
				return oneOf([]string{`[]`, `null`, `{"os":"linux"}`})
			}
			return oneOf([]string{`"a"`, `"sha256:x"`, `"` + ocispec.MediaTypeImageConfig + `"`, `"application/vnd.dsse.envelope.v1+json"`, `"e30="`})
		})
	}
	list := func() string {
		var entries []string
		for range r.IntN(3) {
			entries = append(entries, descriptor())
		}
		return `[` + strings.Join(entries, ",") + `]`
	}
	text := object(documentFields, func(field string) string {
		switch field {
		case "schemaVersion":
			return "2"
		case "mediaType":
			return `"` + oneOf(toldTypes[1:]) + `"`
		case "layers", "blobs", "manifests":
			return list()
		case "config", "subject":
			return descriptor()
		case "annotations":
			return annotations()
		}
		return `"text/sbom"`
	})
	if r.IntN(20) == 0 {
		text = oneOf([]string{"\ufeff" + text, text + text, text + " x", text + "\x00", "[" + text + "]", text + "\n"})
	}
	return text
}

// Over generated documents: what the strict reader takes, encoding/json reads alike.
func TestStrictReaderReadsAsTheSecond(t *testing.T) {
	t.Parallel()
	const documents = 20_000
	r, taken := rand.New(rand.NewPCG(1, 2)), 0
	for range documents {
		text, mediaType := oddDocument(r), toldTypes[r.IntN(len(toldTypes))]
		if holdsAgainstSecondReader(t, []byte(text), mediaType) {
			taken++
		}
		if t.Failed() {
			t.Fatalf("told %q: %q", mediaType, text)
		}
	}
	if taken < documents/20 || taken > documents*19/20 {
		t.Errorf("%d of %d documents are taken, they test nothing", taken, documents)
	}
}

// Every field, in every spelling or with every odd value, alone and beside the honest
// one, in a document and in each of its descriptors.
func TestStrictReaderOnEveryField(t *testing.T) {
	t.Parallel()
	taken, all := 0, 0
	for _, frame := range []struct {
		fields []string
		format string
	}{
		{documentFields, `{%s}`},
		{documentFields, `{"manifests":[],%s}`},
		{documentFields, `{%s,"layers":[{"digest":"a"}]}`},
		{descriptorFields, `{"layers":[{"digest":"a"},{%s}]}`},
		{descriptorFields, `{"manifests":[{%s},{"digest":"a"}]}`},
		{descriptorFields, `{"config":{%s}}`},
		{descriptorFields, `{"subject":{%s},"manifests":[]}`},
	} {
		for _, field := range frame.fields {
			for _, name := range spellings(field) {
				for i, value := range oddValues {
					if name != field && i%5 != 0 { // what the value is matters less
						continue
					}
					for _, member := range []string{`"%s":%s`, `"%s":%s,"` + field + `":null`} {
						text := fmt.Sprintf(frame.format, fmt.Sprintf(member, name, value))
						mediaType := toldTypes[all%3]
						all++
						if holdsAgainstSecondReader(t, []byte(text), mediaType) {
							taken++
						}
						if t.Failed() {
							t.Fatalf("told %q: %q", mediaType, text)
						}
					}
				}
			}
		}
	}
	if taken < all/20 || taken > all*19/20 {
		t.Errorf("%d of %d documents are taken, they test nothing", taken, all)
	}
}
