package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// predicate are the annotations of a bundle of that predicate type.
func predicate(p string) map[string]string {
	return map[string]string{artifact.AnnotationPredicate: p}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	const (
		sign    = "https://sigstore.dev/cosign/sign/v1"
		notary  = "application/vnd.cncf.notary.signature"
		spdx    = "application/spdx+json"
		example = "application/vnd.example.a"
	)
	bundle := artifact.Referrer{ArtifactType: artifact.TypeBundle}
	signature := artifact.Referrer{ArtifactType: artifact.TypeBundle, Annotations: predicate(sign)}
	provenance := artifact.Referrer{ArtifactType: artifact.TypeBundle, Annotations: predicate("https://slsa.dev/provenance/v1")}
	for _, tc := range []struct {
		name            string
		types, required []string
		r               artifact.Referrer
		listed, final   Verdict
		reason          string // of both; a listing's type that says nothing has its own
	}{
		{"exact", []string{"text/x", spdx}, nil, artifact.Referrer{ArtifactType: spdx}, Take, Take, `artifact type "application/spdx+json"`},
		{"glob", []string{"application/vnd.example.*"}, nil, artifact.Referrer{ArtifactType: example}, Take, Take, `artifact type "application/vnd.example.*"`},
		{"set", []string{artifact.SetSBOMs, artifact.SetSignatures}, nil, artifact.Referrer{ArtifactType: notary}, Take, Take, `artifact type "signatures"`},
		{"nothing matches", []string{artifact.SetSBOMs}, nil, artifact.Referrer{ArtifactType: notary}, Skip, Skip, `"application/vnd.cncf.notary.signature" is not among`},
		{"nothing wanted", nil, nil, artifact.Referrer{ArtifactType: notary}, Skip, Skip, "is not among"},

		{"denial last", []string{SetAll, "!sboms"}, nil, artifact.Referrer{ArtifactType: spdx}, Skip, Skip, `denied by "!sboms"`},
		{"denial first", []string{"!sboms", SetAll}, nil, artifact.Referrer{ArtifactType: spdx}, Skip, Skip, `denied by "!sboms"`},
		{"denial of another type", []string{"!sboms", SetAll}, nil, artifact.Referrer{ArtifactType: notary}, Take, Take, `artifact type "all"`},
		{"denial alone takes nothing", []string{"!sboms"}, nil, artifact.Referrer{ArtifactType: notary}, Skip, Skip, "is not among"},
		{"denial in another case", []string{SetAll, "!Application/SPDX+JSON"}, nil, artifact.Referrer{ArtifactType: "application/Spdx+json; v=1"}, Skip, Skip, `denied by "!Application/SPDX+JSON"`},

		{"required, not among the types", []string{artifact.SetSBOMs}, []string{artifact.SetSignatures}, artifact.Referrer{ArtifactType: notary}, Take, Take, `required "signatures"`},
		{"required, no types", nil, []string{"application/vnd.example.*"}, artifact.Referrer{ArtifactType: example}, Take, Take, `required "application/vnd.example.*"`},

		{"bundle, signature wanted", []string{artifact.SetSignatures}, nil, signature, Take, Take, `artifact type "signatures"`},
		{"bundle, attestation not wanted", []string{artifact.SetSignatures}, nil, provenance, Skip, Skip, "is not among"},
		{"bundle, attestation wanted", []string{artifact.SetAttestations}, nil, provenance, Take, Take, `artifact type "attestations"`},
		{"bundle, attestation denied", []string{SetAll, "!attestations"}, nil, provenance, Skip, Skip, `denied by "!attestations"`},
		{"bundle that says nothing", []string{artifact.SetAttestations}, nil, bundle, Ask, Take, `artifact type "attestations"`},
		{"bundle that says nothing, required", nil, []string{artifact.SetSignatures}, bundle, Ask, Take, `required "signatures"`},
		{"bundle that says nothing, SBOMs wanted", []string{artifact.SetSBOMs}, nil, bundle, Skip, Skip, "is not among"},
		{"bundle that says nothing, by its type", []string{artifact.SetSignatures, artifact.TypeBundle}, nil, bundle, Take, Take, `artifact type "signatures"`},
		{"bundle that says nothing, denied by its type", []string{SetAll, "!" + artifact.TypeBundle}, nil, bundle, Skip, Skip, "denied by"},
		{"bundle that says nothing, the other reading denied", []string{artifact.SetSignatures, "!attestations"}, nil, bundle, Ask, Take, `artifact type "signatures"`},
		{"bundle that says nothing, the wanted reading denied", []string{artifact.SetSignatures, "!signatures"}, nil, bundle, Skip, Skip, `denied by "!signatures"`},
		{"bundle that says nothing, all wanted, one reading denied", []string{SetAll, "!attestations"}, nil, bundle, Ask, Take, `artifact type "all"`},
		{"bundle that says nothing, both readings denied", []string{SetAll, "!signatures", "!attestations"}, nil, bundle, Skip, Skip, `denied by "!signatures"`},
		{"bundle that says nothing, both readings wanted", []string{artifact.SetSignatures, artifact.SetAttestations}, nil, bundle, Take, Take, `artifact type "signatures"`},

		{"no type", []string{artifact.SetSignatures}, nil, artifact.Referrer{}, Ask, Skip, ""},
		{"no type, all wanted", []string{SetAll}, nil, artifact.Referrer{}, Ask, Take, ""},
		{"oci.empty", []string{artifact.SetSignatures}, nil, artifact.Referrer{ArtifactType: "application/vnd.oci.empty.v1+json"}, Ask, Skip, ""},
		{"oci.empty in another case", []string{artifact.SetSignatures}, nil, artifact.Referrer{ArtifactType: "Application/vnd.OCI.empty.v1+json; a=b"}, Ask, Skip, ""},
		{"oci.empty, denied", []string{SetAll, "!application/vnd.oci.*"}, nil, artifact.Referrer{ArtifactType: "application/vnd.oci.empty.v1+json"}, Ask, Skip, ""},
		{"OCI image config", []string{artifact.SetSignatures}, nil, artifact.Referrer{ArtifactType: "application/vnd.oci.image.config.v1+json"}, Ask, Skip, ""},
		{"Docker image config", []string{SetAll}, nil, artifact.Referrer{ArtifactType: "application/vnd.docker.container.image.v1+json"}, Ask, Take, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := mustSelect(t, []Rule{
				{Repositories: []string{"elsewhere.test/**"}, ArtifactTypes: []string{SetAll}},
				{Repositories: []string{"a.test/**"}, ArtifactTypes: tc.types, Required: tc.required},
			}, "a.test/app")
			listed, final := s.Decide(tc.r), s.DecideManifest(tc.r)
			if listed.Verdict != tc.listed || final.Verdict != tc.final {
				t.Errorf("verdicts %v by the listing, %v by the manifest; want %v, %v", listed, final, tc.listed, tc.final)
			}
			reasons := []string{final.Reason}
			if tc.reason == "" {
				if !strings.Contains(listed.Reason, "the manifest decides") {
					t.Errorf("reason %q does not say who decides", listed.Reason)
				}
			} else {
				reasons = append(reasons, listed.Reason)
			}
			for _, reason := range reasons {
				if !strings.HasPrefix(reason, `rule 2, repository "a.test/**": `) || !strings.Contains(reason, tc.reason) {
					t.Errorf("reason %q names not both rule 2 and %s", reason, tc.reason)
				}
			}
			if tc.r.Annotations == nil && s.Wants(tc.r.ArtifactType) != (tc.final == Take) {
				t.Errorf("Wants is not as the manifest decides")
			}
		})
	}
}

func TestReasonNamesTheClient(t *testing.T) {
	t.Parallel()
	s := mustSelect(t, nil, "a.test/app", artifact.SetSBOMs)
	got := s.DecideManifest(artifact.Referrer{ArtifactType: "text/spdx"})
	want := Decision{Take, `the built-in rule (no rules are configured), artifact types of the client's selection: artifact type "sboms"`}
	if got != want {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		types, required []string
		want            bool
	}{
		{nil, nil, true},
		{[]string{"!sboms"}, nil, true},
		{[]string{"!sboms", SetAll}, nil, false},
		{nil, []string{artifact.SetSignatures}, false},
	} {
		s := mustSelect(t, []Rule{{Repositories: []string{"**"}, ArtifactTypes: tc.types, Required: tc.required}}, "a.test/app")
		if s.Empty() != tc.want {
			t.Errorf("%s: empty %v", s, s.Empty())
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	notary := artifact.Referrer{ArtifactType: "application/vnd.cncf.notary.signature"}
	spdx := artifact.Referrer{ArtifactType: "Application/SPDX+JSON"}
	bundle := artifact.Referrer{ArtifactType: artifact.TypeBundle}
	for _, tc := range []struct {
		name     string
		required []string
		found    []artifact.Referrer
		want     []string
	}{
		{"nothing required", nil, nil, nil},
		{"nothing found", []string{artifact.SetSignatures, artifact.SetSBOMs}, nil, []string{artifact.SetSignatures, artifact.SetSBOMs}},
		{"all found", []string{artifact.SetSignatures, artifact.SetSBOMs}, []artifact.Referrer{spdx, notary}, nil},
		{"one found", []string{artifact.SetSignatures, artifact.SetSBOMs}, []artifact.Referrer{notary, notary}, []string{artifact.SetSBOMs}},
		{"one referrer for two patterns", []string{artifact.SetSBOMs, "application/spdx*"}, []artifact.Referrer{spdx}, nil},
		{"of another type", []string{"application/vnd.example.*"}, []artifact.Referrer{spdx}, []string{"application/vnd.example.*"}},
		{"anything", []string{SetAll}, []artifact.Referrer{spdx}, nil},
		{"anything, nothing found", []string{SetAll}, nil, []string{SetAll}},
		{"a bundle that says nothing", []string{artifact.SetSignatures, artifact.SetAttestations}, []artifact.Referrer{bundle}, []string{artifact.SetSignatures, artifact.SetAttestations}},
		{"a bundle by its type", []string{artifact.TypeBundle}, []artifact.Referrer{bundle}, nil},
		{"an attestation is no signature", []string{artifact.SetSignatures}, []artifact.Referrer{{ArtifactType: artifact.TypeBundle, Annotations: predicate("https://slsa.dev/provenance/v1")}}, []string{artifact.SetSignatures}},
		{"a signature", []string{artifact.SetSignatures}, []artifact.Referrer{bundle, {ArtifactType: artifact.TypeBundle, Annotations: predicate("https://sigstore.dev/cosign/sign/v1")}}, nil},
		{"a signature without content", []string{artifact.SetSignatures}, []artifact.Referrer{{ArtifactType: notary.ArtifactType, Hollow: true}}, []string{artifact.SetSignatures}},
		{"a signature without content, by its exact type", []string{notary.ArtifactType}, []artifact.Referrer{{ArtifactType: notary.ArtifactType, Hollow: true}}, []string{notary.ArtifactType}},
		{"a signature without content, by a glob", []string{"application/vnd.cncf.*"}, []artifact.Referrer{{ArtifactType: notary.ArtifactType, Hollow: true}}, []string{"application/vnd.cncf.*"}},
		{"a signature without content, of all", []string{SetAll}, []artifact.Referrer{{ArtifactType: notary.ArtifactType, Hollow: true}}, []string{SetAll}},
		{"annotations alone, of an exact type", []string{"application/vnd.example.approval"}, []artifact.Referrer{{ArtifactType: "application/vnd.example.approval", Hollow: true}}, nil},
		{"annotations alone, of a glob", []string{"application/vnd.example.*"}, []artifact.Referrer{{ArtifactType: "application/vnd.example.approval", Hollow: true}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := mustSelect(t, []Rule{{Repositories: []string{"**"}, Required: tc.required}}, "a.test/app")
			if got := s.Missing(tc.found); !slices.Equal(got, tc.want) {
				t.Errorf("missing %q, want %q", got, tc.want)
			}
			if got := s.Required(); !slices.Equal(got, tc.required) {
				t.Errorf("required %q, want %q", got, tc.required)
			}
		})
	}
}

// A denial that a bundle may fall under cannot be had around by leaving the bundle's
// annotation out, and what does not count is told with the reason.
func TestWhatDoesNotCount(t *testing.T) {
	t.Parallel()
	bundle := artifact.Referrer{ArtifactType: artifact.TypeBundle}
	notary := artifact.Referrer{ArtifactType: "application/vnd.cncf.notary.signature"}
	for _, tc := range []struct {
		name            string
		types, required []string
		r               artifact.Referrer
		want            string // why it does not count; "" where it does or is of another type
		missing         bool
	}{
		{"it counts", nil, []string{artifact.SetSignatures}, notary, "", false},
		{"of another type", nil, []string{artifact.SetSBOMs}, notary, "", true},
		{"no annotation", nil, []string{artifact.SetSignatures}, bundle, "it does not say what it holds (annotation dev.sigstore.bundle.predicateType)", true},
		{"no annotation, by its glob", nil, []string{"application/vnd.dev.sigstore.*"}, bundle, "", false},
		{"a reading denied, by its glob", []string{"!attestations"}, []string{"application/vnd.dev.sigstore.*"}, bundle, `the rule denies it by "!attestations"`, true},
		{"a reading denied, by its type", []string{"!attestations", SetAll}, []string{artifact.TypeBundle}, bundle, `the rule denies it by "!attestations"`, true},
		{"both readings denied, anything required", []string{"!signatures", "!attestations"}, []string{SetAll}, bundle, `the rule denies it by "!attestations"`, true},
		{"no content", nil, []string{artifact.SetSignatures}, artifact.Referrer{ArtifactType: notary.ArtifactType, Hollow: true}, "it has no content", true},
		{"it counts for one of two", nil, []string{artifact.SetSBOMs, artifact.SetSignatures}, notary, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := mustSelect(t, []Rule{{Repositories: []string{"**"}, ArtifactTypes: tc.types, Required: tc.required}}, "a.test/app", SetAll)
			if got := s.Uncounted(tc.r); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if got := s.Missing([]artifact.Referrer{tc.r}); len(got) > 0 != tc.missing {
				t.Errorf("missing %q, want some: %t", got, tc.missing)
			}
		})
	}
}

// Signatures are followed where a rule or a client says how deep, and not by default.
func TestFollows(t *testing.T) {
	t.Parallel()
	bundle := func(predicate string) artifact.Referrer {
		return artifact.Referrer{ArtifactType: artifact.TypeBundle, Annotations: map[string]string{artifact.AnnotationPredicate: predicate}}
	}
	byDefault := []struct {
		what string
		r    artifact.Referrer
		want bool
	}{
		{"notation's signature", artifact.Referrer{ArtifactType: "application/vnd.cncf.notary.signature"}, false},
		{"cosign's signature", artifact.Referrer{ArtifactType: artifact.TypeCosignSignature}, false},
		{"a bundle that signs", bundle("https://sigstore.dev/cosign/sign/v1"), false},
		{"a bundle that attests", bundle("https://slsa.dev/provenance/v1"), true},
		{"a bundle that does not say", artifact.Referrer{ArtifactType: artifact.TypeBundle}, true},
		{"an attestation", artifact.Referrer{ArtifactType: artifact.TypeCosignAttestation}, true},
		{"an SBOM", artifact.Referrer{ArtifactType: "application/spdx+json"}, true},
		{"anything else", artifact.Referrer{ArtifactType: "application/vnd.example"}, true},
	}
	for depth, explicit := range map[int]bool{0: false, 1: true, DefaultDepth: true, 3: true} {
		p, err := New([]Rule{{Repositories: []string{"**"}, Depth: depth}})
		if err != nil {
			t.Fatal(err)
		}
		rule, err := p.Select("a.test/app", nil)
		if err != nil {
			t.Fatal(err)
		}
		client, err := rule.WithDepth(DefaultDepth)
		if err != nil {
			t.Fatal(err)
		}
		none, err := rule.WithDepth(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range byDefault {
			for who, got := range map[string]bool{"the rule's": rule.Follows(tc.r), "a client's of 0": none.Follows(tc.r)} {
				if want := explicit || tc.want; got != want {
					t.Errorf("%s is followed at %s depth %d: %t", tc.what, who, depth, got)
				}
			}
			if !client.Follows(tc.r) {
				t.Errorf("%s is not followed at a client's own depth", tc.what)
			}
		}
	}
}

// A client may ask for less depth than the rule has, and for no more; what the rule says
// of all else stays.
func TestWithDepth(t *testing.T) {
	p, err := New([]Rule{{Repositories: []string{"**"}, ArtifactTypes: []string{SetAll}, Required: []string{artifact.SetSignatures}, Depth: 3, OnError: Fail}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select("a.test/app", nil)
	if err != nil {
		t.Fatal(err)
	}
	for depth, want := range map[int]int{0: 3, 1: 1, 2: 2, 3: 3, MaxDepth: 3} {
		got, err := s.WithDepth(depth)
		if err != nil || got.Depth() != want || len(got.Required()) != 1 || got.OnError() != Fail {
			t.Errorf("depth %d gives %s, %v", depth, got, err)
		}
	}
	if s.Depth() != 3 {
		t.Errorf("the rule's own selection has depth %d now", s.Depth())
	}
	for _, depth := range []int{-1, MaxDepth + 1, 1 << 30} {
		if _, err := s.WithDepth(depth); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "write 1 to 8") {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}
