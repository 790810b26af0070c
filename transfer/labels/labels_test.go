package labels

import (
	_ "crypto/sha512" // go-digest knows only what is linked in
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/core/images"
	clabels "github.com/containerd/containerd/v2/pkg/labels"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const key = "containerd.io/gc.ref.content.referrer.sha256."

// twin returns a digest whose hex digits begin with the prefix; a real collision
// of twelve digits takes seconds to make.
func twin(prefix, rest string) digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, prefix+strings.Repeat(rest, 64-len(prefix)))
}

var (
	digestA     = twin("aaaaaaaaaaaa", "1")
	digestB     = twin("aaaaaaaaaaaa", "2") // shares 12 digits with A
	digestC     = twin("aaaaaaaaaaaa", "3") // and so does C
	digestOther = twin("bbbbbbbbbbbb", "1")
	shortKey    = key + "aaaaaaaaaaaa"
)

func TestTie(t *testing.T) {
	t.Parallel()
	sha512 := digest.SHA512.FromString("x")
	for _, tc := range []struct {
		name      string
		existing  map[string]string
		referrers []digest.Digest
		want      map[string]string
	}{
		{"none", nil, nil, map[string]string{}},
		{"one", nil, []digest.Digest{digestA}, map[string]string{shortKey: digestA.String()}},
		{"two", nil, []digest.Digest{digestA, digestOther}, map[string]string{shortKey: digestA.String(), key + "bbbbbbbbbbbb": digestOther.String()}},
		{"twice", nil, []digest.Digest{digestA, digestA}, map[string]string{shortKey: digestA.String()}},
		{"A and its twin", nil, []digest.Digest{digestA, digestB}, map[string]string{shortKey: digestA.String(), key + digestB.Encoded(): digestB.String()}},
		{"the twin and A", nil, []digest.Digest{digestB, digestA}, map[string]string{shortKey: digestB.String(), key + digestA.Encoded(): digestA.String()}},
		{"three of a kind", nil, []digest.Digest{digestA, digestB, digestC},
			map[string]string{shortKey: digestA.String(), key + digestB.Encoded(): digestB.String(), key + digestC.Encoded(): digestC.String()}},
		{"tied already", map[string]string{shortKey: digestA.String()}, []digest.Digest{digestA}, map[string]string{shortKey: digestA.String()}},
		{"the twin tied already", map[string]string{shortKey: digestB.String()}, []digest.Digest{digestA}, map[string]string{key + digestA.Encoded(): digestA.String()}},
		{"the twin tied already, both found", map[string]string{shortKey: digestB.String()}, []digest.Digest{digestA, digestB},
			map[string]string{shortKey: digestB.String(), key + digestA.Encoded(): digestA.String()}},
		{"both tied already", map[string]string{shortKey: digestB.String(), key + digestA.Encoded(): digestA.String()}, []digest.Digest{digestB, digestA},
			map[string]string{shortKey: digestB.String(), key + digestA.Encoded(): digestA.String()}},
		{"other labels are not repeated", map[string]string{"a": "b", key + "bbbbbbbbbbbb": digestOther.String()}, []digest.Digest{digestA}, map[string]string{shortKey: digestA.String()}},
		{"another algorithm under containerd's key", nil, []digest.Digest{sha512}, map[string]string{key + sha512.Encoded()[:12]: sha512.String()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			before := maps.Clone(tc.existing)
			if got := TieLabels(tc.existing, tc.referrers...); !maps.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
			if !maps.Equal(before, tc.existing) {
				t.Errorf("the existing labels became %q", tc.existing)
			}
		})
	}
}

// Docker Engine reads the key that containerd's client writes.
func TestTieWritesContainerdsKey(t *testing.T) {
	t.Parallel()
	prefixes := images.ChildGCLabels(ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digestA,
		Annotations: map[string]string{images.AnnotationManifestSubject: digestOther.String()},
	})
	for k := range TieLabels(nil, digestA) {
		if want := prefixes[0] + digestA.Encoded()[:12]; k != want {
			t.Errorf("key %q, containerd writes %q", k, want)
		}
	}
}

func TestReferrers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		labels map[string]string
		want   []digest.Digest
	}{
		{"none", nil, nil},
		{"sorted", map[string]string{key + "1": digestOther.String(), key + "2": digestB.String(), key + "3": digestA.String()}, []digest.Digest{digestA, digestB, digestOther}},
		{"each once", map[string]string{shortKey: digestA.String(), key + digestA.Encoded(): digestA.String()}, []digest.Digest{digestA}},
		{"no digest", map[string]string{key + "1": "", key + "2": "sha256:aa", key + "3": "../../etc", shortKey: digestA.String()}, []digest.Digest{digestA}},
		{"other labels", map[string]string{
			"containerd.io/gc.ref.content.m.0": digestA.String(),
			child + "0":                        digestA.String(),
			StatusKey:                          "present",
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := Referrers(tc.labels); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// pruned is what `ctr content prune references` removes (containerd v2.4.2,
// cmd/ctr/commands/content/prune.go: isLayerLabel, which is not exported).
func pruned(key string) bool {
	rest, ok := strings.CutPrefix(key, "containerd.io/gc.ref.content.")
	if !ok {
		return false
	}
	integer := strings.IndexFunc(rest, func(r rune) bool { return !unicode.IsDigit(r) }) < 0
	return strings.HasPrefix(rest, "l.") || integer && rest != "0"
}

func TestPruneReferencesLeavesTheLabels(t *testing.T) {
	t.Parallel()
	for k, want := range map[string]bool{
		"containerd.io/gc.ref.content.l.0": true, "containerd.io/gc.ref.content.3": true,
		"containerd.io/gc.ref.content.0": false, "containerd.io/gc.ref.content.config": false,
	} {
		if pruned(k) != want {
			t.Fatalf("the test's own idea of pruning is wrong about %q", k)
		}
	}
	children := make([]digest.Digest, 40)
	for i := range children {
		children[i] = digest.FromString(strings.Repeat("x", i))
	}
	written := Children(children...)
	maps.Copy(written, TieLabels(map[string]string{shortKey: digestA.String()}, digestB, digestOther))
	for k := range written {
		if pruned(k) {
			t.Errorf("%q would be removed", k)
		}
		// The collector follows keys of this form alone.
		if !strings.HasPrefix(k, "containerd.io/gc.ref.content.") {
			t.Errorf("%q refers to nothing", k)
		}
	}
}

func TestChildren(t *testing.T) {
	t.Parallel()
	if got := Children(); got == nil || len(got) != 0 {
		t.Errorf("no children: %#v, want an empty map that takes more", got)
	}
	got := slices.Sorted(maps.Values(Children(digestB, digestOther, digestA)))
	if want := []string{digestA.String(), digestB.String(), digestOther.String()}; !slices.Equal(got, want) {
		t.Errorf("labels keep %q, want %q", got, want)
	}
}

func TestCheckmark(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 1, 14, 30, 5, 999, time.FixedZone("CEST", 2*60*60))
	want := map[string]string{"transfer-referrers/status": "unknown", "transfer-referrers/checked": "2026-08-01T12:30:05Z"}
	if got := Checkmark("unknown", at); !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The store refuses labels whose key and value are over 4,096 bytes.
func TestLabelsAreValid(t *testing.T) {
	t.Parallel()
	long := digest.SHA512.FromString("x")
	all := TieLabels(map[string]string{key + long.Encoded()[:12]: digestA.String()}, long)
	maps.Copy(all, Children(long))
	for k, v := range all {
		if err := clabels.Validate(k, v); err != nil {
			t.Error(err)
		}
	}
}
