package integration

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	client "github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// discoverer asks the registry as the daemon does.
func discoverer(t *testing.T, reg *registry.Registry) *client.Repository {
	t.Helper()
	spec, err := reference.Parse(reg.Host + "/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	return client.New(spec, []docker.RegistryHost{{
		Client: http.DefaultClient, Host: reg.Host, Scheme: "http", Path: "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
	}}, nil, client.Limits{})
}

// The same questions have the same answers in every registry, whatever it has of
// the specification; and each question costs what it must.
func TestDiscoveryConformance(t *testing.T) {
	f := loadFixture(t)
	for _, kind := range registry.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			reg := startRegistry(t, kind)
			imageAlone(f, t, reg)
			api := kind != registry.Distribution
			image, amd64 := f.Get(fixture.Image), f.Get(fixture.AMD64)
			list := func(subject digest.Digest) client.Listing {
				t.Helper()
				reg.Reset()
				l, err := discoverer(t, reg).List(testContext(t), subject)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			wantRequests := func(what string, withAPI, without int) {
				t.Helper()
				want := without
				if api {
					want = withAPI
				}
				if got := len(reg.Requests()); got != want {
					t.Errorf("%s: %d requests, want %d: %v", what, got, want, reg.Requests())
				}
			}

			if l := list(image.Digest); l.Status != labels.Absent || len(l.Referrers) != 0 {
				t.Errorf("an image without referrers is %q with %v", l.Status, l.Referrers)
			}
			wantRequests("an image without referrers", 1, 2)

			tool(t, t.TempDir(), "regctl", "--host", "reg="+reg.Host+",tls=disabled", "artifact", "put",
				"--artifact-type", "application/spdx+json", "--subject", reg.Host+"/app@"+amd64.Digest.String(), "-f", "/dev/null")
			l := list(amd64.Digest)
			if l.Status != labels.Present || len(l.Referrers) != 1 {
				t.Fatalf("an image with a referrer is %q with %v: %v", l.Status, l.Referrers, l.Answers)
			}
			wantRequests("an image with a referrer", 1, 2)
			data, err := discoverer(t, reg).Manifest(testContext(t), l.Referrers[0])
			if err != nil {
				t.Fatal(err)
			}
			var m ocispec.Manifest
			if err := json.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			if m.ArtifactType != "application/spdx+json" || m.Subject.Digest != amd64.Digest {
				t.Errorf("not what was attached: %s", data)
			}

			if l := list(digest.FromString("unheard of")); l.Status != labels.Absent {
				t.Errorf("a subject that is unheard of is %q", l.Status)
			}
			reg.Fail(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(http.StatusForbidden)
				return true
			})
			if l := list(image.Digest); l.Status != labels.Unknown {
				t.Errorf("a registry that forbids is %q", l.Status)
			}
		})
	}
}

// What each producer makes is what the sets say it is.
func TestProducersAreClassified(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	sets := map[string]string{}
	for _, subject := range []string{fixture.Image, fixture.AMD64, fixture.ARM64, fixture.SBOM} {
		l, err := discoverer(t, reg).List(testContext(t), f.Get(subject).Digest)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range l.Referrers {
			sets[f.Name(d.Digest)] = artifact.SetOf(artifact.Referrer{ArtifactType: d.ArtifactType, Annotations: d.Annotations})
		}
	}
	for name, want := range map[string]string{
		fixture.CosignSignature: artifact.SetSignatures,
		fixture.CosignSBOM:      artifact.SetAttestations,
		fixture.Notation:        artifact.SetSignatures,
		fixture.SBOM:            artifact.SetSBOMs,
		fixture.SBOMARM64:       artifact.SetSBOMs,
		fixture.SBOMSignature:   artifact.SetSignatures,
		fixture.VEX:             "",
	} {
		if got, ok := sets[name]; !ok || got != want {
			t.Errorf("%s is in set %q (listed: %v), want %q", name, got, ok, want)
		}
	}
}

// What cosign v2 stored under its tags is found, in a registry with the API and in
// one without, and is what it is.
func TestCosignV2(t *testing.T) {
	f := loadFixture(t)
	want := map[string]string{
		fixture.LegacySignature:   artifact.TypeCosignSignature,
		fixture.LegacyAttestation: artifact.TypeCosignAttestation,
		fixture.LegacySBOM:        artifact.TypeCosignSBOM,
	}
	for _, kind := range []registry.Kind{registry.Olareg, registry.Distribution} {
		t.Run(string(kind), func(t *testing.T) {
			reg := startRegistry(t, kind)
			imageAlone(f, t, reg)
			if err := f.PushCosignTags(testContext(t), reg, "app"); err != nil {
				t.Fatal(err)
			}
			d := startDaemon(t, active(rule(`artifact_types = ["all"]`, `required = ["signatures"]`)))
			image := reg.Host + "/app:v1"
			pull(t, d, image)
			got := map[string]string{}
			for _, r := range ls(t, d, image).Referrers {
				got[f.Name(r.Digest)] = r.ArtifactType
			}
			for name, artifactType := range want {
				if got[name] != artifactType {
					t.Errorf("%s is stored as %q, want %s", name, got[name], artifactType)
				}
				wantWhole(t, f, d, name)
			}
			collect(t, d)
			wantWhole(t, f, d, fixture.LegacySignature)
		})
	}
}

// BuildKit's attestation manifests, in the form that its documentation gives them,
// are referrers of the manifest that they name: whether they have a subject field
// and are listed by the registry as well, or neither.
func TestBuildKitAttestations(t *testing.T) {
	f := loadFixture(t)
	for _, tc := range []struct {
		name    string
		subject bool
	}{{"in the index alone", false}, {"with a subject, and listed as well", true}} {
		t.Run(tc.name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			imageAlone(f, t, reg)
			attestation := pushBuildKit(t, f, reg, tc.subject)
			d := startDaemon(t, active(rule(`artifact_types = ["attestations"]`)))
			image := reg.Host + "/app:built"
			// Twice: ctr asks for the metadata of all platforms, CRI does not.
			for _, flags := range [][]string{{"--skip-metadata"}, nil} {
				pull(t, d, image, flags...)
				read := ls(t, d, image)
				if len(read.Referrers) != 1 {
					t.Fatalf("%d referrers are stored, want 1: %+v", len(read.Referrers), read.Referrers)
				}
				r := read.Referrers[0]
				if r.Digest != attestation.Digest || r.Subject != f.Get(fixture.AMD64).Digest || r.ArtifactType != artifact.TypeBuildKitAttestation {
					t.Errorf("stored is %+v", r)
				}
				collect(t, d)
				if !slices.Contains(contents(t, d), digest.FromString(statement)) {
					t.Error("the statement is not stored")
				}
			}
			if n := reg.Count("/manifests/" + attestation.Digest.String()); n != 1 {
				t.Errorf("the attestation manifest was fetched %d times", n)
			}
		})
	}
}

// They are part of the image that is pushed; where its index goes without them, since
// one platform is pushed, they go as referrers, without a listing of their own.
func TestPushBuildKitAttestations(t *testing.T) {
	f := loadFixture(t)
	for _, subject := range []bool{false, true} {
		from := startRegistry(t, registry.Olareg)
		imageAlone(f, t, from)
		attestation := pushBuildKit(t, f, from, subject)
		d := startDaemon(t, active("push = true\n"+rule(`artifact_types = ["attestations"]`)))
		image := from.Host + "/app:built"
		ctr(t, d, "images", "pull", "--plain-http", "--all-platforms", image)
		for _, flags := range [][]string{nil, {"--platform", "linux/amd64"}} {
			to := startRegistry(t, registry.GoContainerRegistry)
			if len(flags) > 0 { // the registry would refuse an index of which it lacks parts
				to.Fail(denied(http.MethodPut, "/manifests/built", http.StatusCreated))
			}
			if err := pushAs(t, d, image, to.Host+"/app:built", flags...); err != nil {
				t.Fatal(err)
			}
			if n := to.Count("PUT /v2/app/manifests/" + attestation.Digest.String()); n != 1 {
				t.Errorf("subject %v, %q: the attestation manifest was put %d times", subject, flags, n)
			}
			if n := to.Count("/manifests/sha256-"); n != 0 {
				t.Errorf("subject %v, %q: %d requests for tags", subject, flags, n)
			}
		}
	}
}

const statement = `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v0.2"}`

func pushBuildKit(t *testing.T, f *fixture.Fixture, reg *registry.Registry, subject bool) ocispec.Descriptor {
	t.Helper()
	ctx := testContext(t)
	config := `{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["` + digest.FromString(statement).String() + `"]}}`
	for _, blob := range []string{config, statement} {
		if _, err := reg.PushBlob(ctx, "app", []byte(blob)); err != nil {
			t.Fatal(err)
		}
	}
	amd64 := f.Get(fixture.AMD64)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString(config), Size: int64(len(config))},
		Layers: []ocispec.Descriptor{{
			MediaType: "application/vnd.in-toto+json", Digest: digest.FromString(statement), Size: int64(len(statement)),
			Annotations: map[string]string{"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"},
		}},
	}
	if subject {
		m.ArtifactType = artifact.TypeBuildKitAttestation
		m.Subject = &ocispec.Descriptor{MediaType: amd64.MediaType, Digest: amd64.Digest, Size: amd64.Size}
	}
	attestation := put(t, reg, "", ocispec.MediaTypeImageManifest, m)
	platform := func(d ocispec.Descriptor, os, arch string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: &ocispec.Platform{OS: os, Architecture: arch}}
	}
	embedded := platform(attestation, "unknown", "unknown")
	embedded.Annotations = map[string]string{
		"vnd.docker.reference.type":   "attestation-manifest",
		"vnd.docker.reference.digest": amd64.Digest.String(),
	}
	put(t, reg, "built", ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{platform(amd64, "linux", "amd64"), platform(f.Get(fixture.ARM64), "linux", "arm64"), embedded},
	})
	return attestation
}

func put(t *testing.T, reg *registry.Registry, tag, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := reg.PushManifest(testContext(t), "app", tag, mediaType, data)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// A pull of an image without referrers costs one request a subject where the
// registry has the API, two where it has not, beyond what stock containerd makes.
func TestRequestsOfAnImageWithoutReferrers(t *testing.T) {
	f := loadFixture(t)
	for _, tc := range []struct {
		kind   registry.Kind
		plugin string
		want   int
	}{
		{registry.Olareg, `cosign_tags = "never"`, 2},
		{registry.Distribution, `cosign_tags = "never"`, 4},
		{registry.Olareg, "", 2 + 4}, // .sig and .att of each subject
		{registry.Distribution, "", 4 + 4},
	} {
		t.Run(string(tc.kind)+" "+tc.plugin, func(t *testing.T) {
			reg := startRegistry(t, tc.kind)
			imageAlone(f, t, reg)
			image, want := reg.Host+"/app:v1", tc.want
			pull(t, startDaemon(t, active(tc.plugin)), image, "--plain-http")
			asked := 0
			for _, r := range reg.Requests() {
				if strings.Contains(r.Path, "/referrers/") || strings.Contains(r.Path, "/manifests/sha256-") {
					asked++
				}
			}
			if asked != want {
				t.Errorf("%d requests for referrers of 2 subjects, want %d: %v", asked, want, reg.Requests())
			}
			ours := len(reg.Requests())
			reg.Reset()
			pull(t, startDaemon(t, stock), image, "--plain-http")
			if theirs := len(reg.Requests()); ours-asked > theirs {
				t.Errorf("%d requests beside those for referrers, stock makes %d", ours-asked, theirs)
			}
		})
	}
}
