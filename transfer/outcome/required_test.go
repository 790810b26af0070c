package outcome

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

const signature = "application/vnd.cncf.notary.signature"

// selection is that of a pull which the rule governs.
func selection(t *testing.T, rule policy.Rule) *policy.Selection {
	t.Helper()
	rule.Repositories = []string{"**"}
	p, err := policy.New([]policy.Rule{rule})
	if err != nil {
		t.Fatal(err)
	}
	sel, err := p.Select("a/b", nil)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

// A signature on the index is one for all; one on a platform's manifest says nothing
// of another platform.
func TestRequiredHoldsForEachPlatform(t *testing.T) {
	t.Parallel()
	sel := selection(t, policy.Rule{Required: []string{artifact.SetSignatures}})
	taken := []Referrer{{ArtifactType: signature}}
	at := func(mediaType, name string, taken []Referrer) Subject {
		return Subject{MediaType: mediaType, Digest: digest.FromString(name), Image: true, Status: labels.Present, Taken: taken}
	}
	below := func(parent string, s Subject) Subject {
		s.Parents = append(s.Parents, digest.FromString(parent))
		return s
	}
	index, amd64, arm64 := ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageManifest
	for _, tc := range []struct {
		name     string
		subjects []Subject
		missing  []string // of which
	}{
		{"on the index", []Subject{at(index, "index", taken), below("index", at(amd64, "amd64", nil)), below("index", at(arm64, "arm64", nil))}, nil},
		{"on each manifest", []Subject{at(index, "index", nil), below("index", at(amd64, "amd64", taken)), below("index", at(arm64, "arm64", taken))}, nil},
		{"on one of two", []Subject{at(index, "index", nil), below("index", at(amd64, "amd64", nil)), below("index", at(arm64, "arm64", taken))}, []string{"amd64"}},
		{"nowhere", []Subject{at(index, "index", nil), below("index", at(amd64, "amd64", nil))}, []string{""}},
		{"a single manifest", []Subject{at(amd64, "amd64", taken)}, nil},
		{"an index alone", []Subject{at(index, "index", nil)}, []string{""}},
		{"on an index that lies beside", []Subject{at(index, "index", nil), below("index", at(amd64, "amd64", nil)),
			below("index", at(index, "nested", taken)), below("nested", at(arm64, "arm64", nil))}, []string{"amd64"}},
		{"on the index above a nested one", []Subject{at(index, "index", taken), below("index", at(index, "nested", nil)), below("nested", at(arm64, "arm64", nil))}, nil},
		{"below two indexes, one of which is signed", []Subject{at(index, "index", nil), below("index", at(index, "nested", taken)),
			below("nested", below("index", at(arm64, "arm64", nil)))}, nil},
		{"on an index that is none of the image's", []Subject{at(index, "index", nil), below("stranger", at(amd64, "amd64", nil)),
			{MediaType: index, Digest: digest.FromString("stranger"), Taken: taken}}, []string{""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := (&Outcome{Subjects: tc.subjects}).Enforce("image", sel)
			if (err == nil) != (tc.missing == nil) {
				t.Fatalf("%v, want missing %q", err, tc.missing)
			}
			for _, name := range slices.DeleteFunc(tc.missing, func(s string) bool { return s == "" }) {
				if !strings.Contains(err.Error(), "signatures of "+digest.FromString(name).String()) {
					t.Errorf("the error does not name %s: %v", name, err)
				}
			}
		})
	}
}

// Manifests that were not asked about satisfy nothing, and are unknown.
func TestUnaskedManifestsSatisfyNothing(t *testing.T) {
	t.Parallel()
	signed := Referrer{ArtifactType: signature, Digest: digest.FromString("signature")}
	root := func(taken ...Referrer) *Outcome {
		return &Outcome{Unasked: 2, Subjects: []Subject{
			{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("index"), Image: true, Status: labels.Present, Taken: taken},
			{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("amd64"), Image: true, Status: labels.Present,
				Taken: []Referrer{signed}, Parents: []digest.Digest{digest.FromString("index")}},
		}}
	}
	for _, tc := range []struct {
		name    string
		rule    policy.Rule
		out     *Outcome
		refused string
	}{
		{"required", policy.Rule{Required: []string{artifact.SetSignatures}}, root(), "signatures of 2 manifests that were not asked about, over the limit of 1000 subjects a pull"},
		{"required, and the root has it", policy.Rule{Required: []string{artifact.SetSignatures}}, root(signed), ""},
		{"on_error = fail", policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, OnError: policy.Fail}, root(), "2 manifests that were not asked about"},
		{"neither", policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}}, root(), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := tc.out.Enforce("image", selection(t, tc.rule))
			if (err == nil) != (tc.refused == "") || err != nil && !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%v, want %q", err, tc.refused)
			}
		})
	}
}

// With on_error = "fail" nothing may be unknown: neither a subject of the image nor a
// referrer whose own referrers the rule asks for. A limit that was reached is told of, and
// refuses nothing.
func TestUnknownFailsThePullWhereTheRuleSaysSo(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		image   labels.Status
		below   labels.Status
		refused string
	}{
		{"all is known", labels.Absent, labels.Present, ""},
		{"the image is unknown", labels.Unknown, labels.Present, digest.FromString("image").String() + ": because"},
		{"a referrer is unknown", labels.Present, labels.Unknown, digest.FromString("referrer").String() + ": because"},
		{"the image is truncated", labels.Truncated, labels.Present, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out := &Outcome{Subjects: []Subject{
				{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("image"), Image: true, Status: tc.image, Why: "because"},
				{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("referrer"), Status: tc.below, Why: "because"},
			}}
			if err := out.Enforce("image", selection(t, policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, OnError: policy.Warn})); err != nil {
				t.Errorf("on_error = warn: %v", err)
			}
			err := out.Enforce("image", selection(t, policy.Rule{ArtifactTypes: []string{artifact.SetSignatures}, OnError: policy.Fail}))
			if (err == nil) != (tc.refused == "") || err != nil && (!errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), tc.refused)) {
				t.Errorf("on_error = fail: %v, want %q", err, tc.refused)
			}
		})
	}
}

// An image of thousands of manifests does not make a message of thousands of lines.
func TestRefusalStaysShort(t *testing.T) {
	t.Parallel()
	out := &Outcome{Unasked: 5}
	for i := range MaxSubjects {
		s := Subject{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Image: true, Status: labels.Unknown, Why: "because"}
		for j := range 100 {
			s.Taken = append(s.Taken, Referrer{Digest: digest.FromString(fmt.Sprint(i, j)), ArtifactType: artifact.TypeBundle})
		}
		out.Subjects = append(out.Subjects, s)
	}
	for name, rule := range map[string]policy.Rule{
		"required":        {Required: []string{artifact.SetSignatures}},
		"on_error = fail": {ArtifactTypes: []string{artifact.SetSignatures}, OnError: policy.Fail},
	} {
		err := out.Enforce("image", selection(t, rule))
		if !errdefs.IsFailedPrecondition(err) || len(err.Error()) > 32<<10 || !strings.Contains(err.Error(), "and 993 more") {
			t.Errorf("%s: %.2000v", name, err)
		}
	}
}
