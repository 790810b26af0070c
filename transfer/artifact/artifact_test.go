package artifact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	manifestType = ocispec.MediaTypeImageManifest
	indexType    = ocispec.MediaTypeImageIndex
)

// wantInvalid fails unless the error is errdefs.ErrInvalidArgument and says what.
func wantInvalid(t *testing.T, err error, what string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", what)
	}
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), what) {
		t.Errorf("error %q, want an errdefs.ErrInvalidArgument with %q", err, what)
	}
}

// array is a JSON array of n descriptors.
func array(n int) string {
	return "[" + strings.TrimSuffix(strings.Repeat("{},", n), ",") + "]"
}

func TestParseIndex(t *testing.T) {
	t.Parallel()
	dgst := digest.FromString("referrer")
	for _, tc := range []struct {
		name, data string
		want       int
		more       bool
	}{
		{"whole", `{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[{"digest":"` + dgst.String() + `","size":7}]}`, 1, false},
		{"without media type", `{"schemaVersion":2,"manifests":[{"digest":"` + dgst.String() + `","size":7}]}`, 1, false},
		{"empty", `{"schemaVersion":2,"manifests":[]}`, 0, false},
		{"null, as Go writes an empty list", `{"schemaVersion":2,"manifests":null}`, 0, false},
		{"unknown fields", `{"manifests":[],"errors":[{"code":1}]}`, 0, false},
		{"white space after it", "{\"manifests\":[]}\r\n\t ", 0, false},
		{"as many as are read", `{"manifests":` + array(MaxDescriptors) + `}`, MaxDescriptors, false},
		{"one more", `{"manifests":` + array(MaxDescriptors+1) + `}`, MaxDescriptors, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			index, err := ParseIndex([]byte(tc.data))
			if err != nil {
				t.Fatal(err)
			}
			if len(index.Entries) != tc.want || index.More != tc.more {
				t.Errorf("%d descriptors, more %v; want %d, %v", len(index.Entries), index.More, tc.want, tc.more)
			}
			if strings.Contains(tc.data, dgst.String()) && (index.Entries[0].Digest != dgst || index.Entries[0].Size != 7) {
				t.Errorf("read %v", index.Entries[0])
			}
		})
	}
}

func TestParseIndexRejects(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, data, what string }{
		{"nothing", ``, "decode JSON"},
		{"a login page", `<html>Sign in</html>`, "decode JSON"},
		{"cut off", `{"manifests":[{}`, "decode JSON"},
		{"no manifests", `{"schemaVersion":2,"mediaType":"` + indexType + `"}`, "has no manifests"},
		{"a registry's error", `{"errors":[{"code":"DENIED"}]}`, "has no manifests"},
		{"null", `null`, "null is no object"},
		{"an array", `[]`, "decode JSON"},
		{"manifests of another kind", `{"manifests":{}}`, "not an array"},
		{"two lists", `{"manifests":` + array(MaxDescriptors+1) + `,"manifests":[{}]}`, "stands there twice"},
		{"an image manifest", `{"schemaVersion":2,"mediaType":"` + manifestType + `","manifests":[]}`, `not an image index but "` + manifestType},
		{"a Docker manifest list", `{"schemaVersion":2,"mediaType":"` + images.MediaTypeDockerSchema2ManifestList + `","manifests":[]}`, "not an image index"},
		{"schemaVersion 1", `{"schemaVersion":1,"manifests":[]}`, "schemaVersion 1, only 2 is known"},
		{"schemaVersion 3", `{"schemaVersion":3,"manifests":[]}`, "schemaVersion 3"},
		{"another value after it", `{"manifests":[]}{"manifests":[{}]}`, "data after the end"},
		{"bytes after it", `{"manifests":[]}x`, "data after the end"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseIndex([]byte(tc.data))
			wantInvalid(t, err, tc.what)
		})
	}
}

// Digest and type of what is stored must stay; what could make the daemon dial,
// or trust bytes it never verified, must not.
func TestDescriptorsDropWhatIsNotUsed(t *testing.T) {
	t.Parallel()
	full := ocispec.Descriptor{
		MediaType: "text/spdx", Digest: digest.FromString("blob"), Size: 4,
		URLs: []string{"http://169.254.169.254/"}, Data: []byte("liar"),
		Annotations: map[string]string{"a": "b", Annotations[0]: "p"}, ArtifactType: "sbom/x",
		Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"},
	}
	want := full
	want.URLs, want.Data, want.Platform = nil, nil, nil
	want.Annotations = map[string]string{Annotations[0]: "p"} // what policy looks at
	data, err := json.Marshal(map[string]any{"manifests": []any{full}})
	if err != nil {
		t.Fatal(err)
	}
	index, err := ParseIndex(data)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = json.Marshal(map[string]any{"config": full, "layers": []any{full}, "subject": full}); err != nil {
		t.Fatal(err)
	}
	m, err := Parse(data, manifestType)
	if err != nil {
		t.Fatal(err)
	}
	withData := want
	withData.Data = full.Data // of what is to be fetched
	for i, got := range []ocispec.Descriptor{index.Entries[0].Descriptor, *m.Subject, m.Blobs[0], m.Blobs[1]} {
		if i == 2 {
			want = withData
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

// Inline data is what the descriptor says, if it is short and base64; a manifest
// whose data is neither is still one.
func TestInlineData(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte("x"), MaxInline)
	for _, tc := range []struct {
		name, data string
		want       []byte
	}{
		{"short", `"e30="`, []byte("{}")},
		{"as long as may be", quoted(long), long},
		{"too long", quoted(append(long, "xxx"...)), nil},
		{"no base64", `"{}"`, nil},
		{"no string", `[1]`, nil},
		{"null", `null`, nil},
	} {
		m, err := Parse([]byte(`{"layers":[{"mediaType":"text/spdx","digest":"sha256:x","size":2,"data":`+tc.data+`}]}`), manifestType)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if got := m.Blobs[0].Data; !bytes.Equal(got, tc.want) {
			t.Errorf("%s: %d bytes, want %d", tc.name, len(got), len(tc.want))
		}
	}
}

func quoted(data []byte) string { return `"` + base64.StdEncoding.EncodeToString(data) + `"` }

// A million entries of three bytes would be some 200 MiB as descriptors (cosign
// CVE-2024-29903). It runs alone: the counter is the whole process's.
func TestMillionEntriesCostNoMemory(t *testing.T) {
	entries, members := array(1_000_000), fields(1_000_000)
	manifest := func(is func(error) bool) func([]byte) error {
		return func(data []byte) error {
			if _, err := Parse(data, manifestType); !is(err) {
				return fmt.Errorf("want another error than: %v", err) //nolint:errorlint // it may be nil
			}
			return nil
		}
	}
	for name, tc := range map[string]struct {
		of    string
		parse func([]byte) error
	}{
		"manifests": {`"manifests":` + entries, func(data []byte) error {
			index, err := ParseIndex(data)
			if err == nil && (len(index.Entries) != MaxDescriptors || !index.More) {
				return fmt.Errorf("%d entries, more %v", len(index.Entries), index.More)
			}
			return err
		}},
		"layers":                       {`"layers":` + entries, manifest(errdefs.IsResourceExhausted)},
		"annotations":                  {`"annotations":{` + members + `}`, manifest(errdefs.IsResourceExhausted)},
		"members":                      {members, manifest(errdefs.IsInvalidArgument)},
		"members of a layer":           {`"layers":[{` + members + `}]`, manifest(errdefs.IsInvalidArgument)},
		"members of an unknown member": {`"x":{` + members + `}`, manifest(errdefs.IsInvalidArgument)},
	} {
		data := []byte(`{"schemaVersion":2,` + tc.of + `}`)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := tc.parse(data)
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// The decoder's buffer doubles until it holds the document.
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(6*len(data)); got > most {
			t.Errorf("%s: %d bytes allocated for a document of %d, want at most %d", name, got, len(data), most)
		}
	}
}

func TestReferrer(t *testing.T) {
	t.Parallel()
	m := Manifest{ArtifactType: "text/spdx", Annotations: map[string]string{"a": "b"}}
	want := Referrer{ArtifactType: "text/spdx", Annotations: map[string]string{"a": "b"}}
	if got := m.Referrer(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
