package archive

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// entries is an index.json of n entries, the last of which is given.
func entries(n int, last string) string {
	return `{"schemaVersion":2,"manifests":[` + strings.Repeat(`{"mediaType":"`+ocispec.MediaTypeImageManifest+`","digest":"`+digest.FromString("a").String()+`","size":1},`, n-1) + last + `]}`
}

// An index.json that can be read in two ways is refused, however many entries it has.
func TestIndexIsReadStrictly(t *testing.T) {
	for _, tc := range []struct{ name, data, says string }{
		{"good", entries(1, `{"digest":"a","size":1}`), ""},
		{"as many entries as an index has elsewhere", entries(artifact.MaxDescriptors, `{}`), ""},
		{"more of them", entries(3*artifact.MaxDescriptors+1, `{}`), ""},
		{"a field of an entry twice", entries(3, `{"digest":"a","digest":"b"}`), "entry 3: the field \"digest\" stands there twice"},
		{"twice behind a thousand", entries(2500, `{"digest":"a","digest":"b"}`), "duplicate object member name \"digest\" within \"/manifests/2499\""},
		{"an annotation twice behind a thousand", entries(1001, `{"annotations":{"a":"b","a":"c"}}`), "duplicate object member name \"a\" within \"/manifests/1000/annotations\""},
		{"another case behind a thousand", entries(1001, `{"Digest":"a"}`), "entry 1001: the field \"Digest\" is not spelt \"digest\""},
		{"a number behind a thousand", entries(1001, `1`), "entry 1001"},
		{"two lists", `{"manifests":[],"manifests":[]}`, "stands there twice"},
		{"trailing data", entries(1, `{}`) + `{}`, "data after the end"},
		{"trailing data behind a thousand", entries(1001, `{}`) + `{}`, "data after the end"},
		{"invalid UTF-8", `{"manifests":[],"a":"` + "\xff" + `"}`, "UTF-8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newShelf(t)
			err := CheckIndex(s.ctx, s.store, s.put(ocispec.MediaTypeImageIndex, []byte(tc.data)))
			if tc.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "index.json of the archive") || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("the error is %v, want an errdefs.ErrInvalidArgument with %q", err, tc.says)
			}
		})
	}
}

// Many entries take memory in proportion to them, and so time.
func TestIndexOfManyEntries(t *testing.T) {
	allocated := func(n int) uint64 {
		data := []byte(`{"manifests":[` + strings.Repeat("{},", n) + "{}]}")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := checkEntries(data); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if one, ten := allocated(20_000), allocated(200_000); ten > 15*one {
		t.Errorf("20,000 entries take %d bytes, ten times as many %d", one, ten)
	}
}

// Names say of an entry that it is a listing, or what cosign stored beside an image.
func TestNamesOfEntries(t *testing.T) {
	subject := digest.FromString("subject")
	other := digest.FromString("other")
	long := digest.SHA512.FromString("subject")
	const repository = "reg.example.com/app:"
	for _, tc := range []struct {
		name    string
		isIndex bool
		dgst    digest.Digest
		listing bool
	}{
		{"sha256-" + subject.Encoded(), true, other, true},
		{repository + "sha256-" + subject.Encoded(), true, other, true},
		{"sha512-" + long.Encoded()[:64], true, other, true},
		{"sha256-" + subject.Encoded(), false, other, false},     // a manifest lists nothing
		{"sha256-" + other.Encoded(), true, other, false},        // an image that is tagged with its own digest
		{"build-" + subject.Encoded(), true, other, false},       // a digest of something else
		{"sha256-" + subject.Encoded()[:63], true, other, false}, // cut off
		{"sha256-" + subject.Encoded() + ".sig", true, other, false},
		{"v1", true, other, false},
		{"", true, other, false},
	} {
		mediaType := ocispec.MediaTypeImageManifest
		if tc.isIndex {
			mediaType = ocispec.MediaTypeImageIndex
		}
		for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
			entry := ocispec.Descriptor{MediaType: mediaType, Digest: tc.dgst, Annotations: map[string]string{key: tc.name}}
			if got := isListing(entry); got != tc.listing {
				t.Errorf("%s %q: a listing: %v, want %v", key, tc.name, got, tc.listing)
			}
			if got, _ := cosignSubject(entry); got != "" {
				t.Errorf("%s %q: cosign's tag of %s", key, tc.name, got)
			}
		}
	}
	for _, kind := range registry.CosignKinds {
		for _, prefix := range []string{"", repository} {
			entry := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Annotations: map[string]string{ocispec.AnnotationRefName: prefix + kind.Tag(subject)}}
			if got, artifactType := cosignSubject(entry); got != subject || artifactType != kind.ArtifactType {
				t.Errorf("%q is of %q and %q", prefix+kind.Tag(subject), got, artifactType)
			}
			entry.MediaType = ocispec.MediaTypeImageIndex
			if got, _ := cosignSubject(entry); got != "" {
				t.Errorf("an index under %q is of %q: cosign writes none", prefix+kind.Tag(subject), got)
			}
		}
	}
	for i, key := range annotationsSubject {
		entry := ocispec.Descriptor{Annotations: map[string]string{key: fmt.Sprint(i)}}
		if got := Subject(entry); got != digest.Digest(fmt.Sprint(i)) {
			t.Errorf("%s is %q", key, got)
		}
	}
}
