package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	provenance02 "github.com/in-toto/attestation/go/predicates/provenance/v02"
	provenance1 "github.com/in-toto/attestation/go/predicates/provenance/v1"
	vsa "github.com/in-toto/attestation/go/predicates/vsa/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/openvex/go-vex/pkg/vex"
	spdxjson "github.com/spdx/tools-golang/json"
	spdxcommon "github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The documents that are attested are written by the libraries that their producers write them
// with, so that their spelling of each format is what conditions meet.

const trustedBuilder = "https://builder.example.com/v1"

func message(t *testing.T, m proto.Message) string {
	t.Helper()
	data, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func slsa02Document(t *testing.T, _ string) string {
	return message(t, &provenance02.Provenance{
		Builder: &provenance02.Builder{Id: trustedBuilder}, BuildType: "https://mobyproject.org/buildkit@v1",
		Invocation: &provenance02.Invocation{ConfigSource: &provenance02.ConfigSource{Uri: "https://git.example.com/org/app#refs/tags/v1", EntryPoint: "Dockerfile"}},
		Metadata:   &provenance02.Metadata{BuildFinishedOn: timestamppb.New(time.Unix(1.7e9, 0)), Completeness: &provenance02.Completeness{Environment: true, Parameters: true}},
		Materials:  []*provenance02.Material{{Uri: "pkg:docker/alpine@3.22", Digest: map[string]string{"sha256": "0a1b"}}},
	})
}

func slsa1Document(t *testing.T, _ string) string {
	t.Helper()
	parameters, err := structpb.NewStruct(map[string]any{"workflow": map[string]any{"ref": "refs/tags/v1", "repository": "https://git.example.com/org/app"}})
	if err != nil {
		t.Fatal(err)
	}
	return message(t, &provenance1.Provenance{
		BuildDefinition: &provenance1.BuildDefinition{
			BuildType: "https://actions.github.io/buildtypes/workflow/v1", ExternalParameters: parameters,
			ResolvedDependencies: []*intoto.ResourceDescriptor{{Uri: "git+https://git.example.com/org/app", Digest: map[string]string{"gitCommit": "0a1b"}}},
		},
		RunDetails: &provenance1.RunDetails{Builder: &provenance1.Builder{Id: trustedBuilder}, Metadata: &provenance1.BuildMetadata{InvocationId: "https://git.example.com/org/app/runs/1"}},
	})
}

func spdxDocument(t *testing.T, _ string) string {
	t.Helper()
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: "app", DocumentNamespace: "https://spdx.example.com/app",
		CreationInfo: &spdx.CreationInfo{Created: "2026-01-01T00:00:00Z", Creators: []spdxcommon.Creator{{CreatorType: "Tool", Creator: "builder-1.0"}}},
		Packages:     []*spdx.Package{{PackageName: "musl", PackageSPDXIdentifier: "musl", PackageDownloadLocation: "NOASSERTION"}},
	}
	var out bytes.Buffer
	if err := spdxjson.Write(doc, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// billOfCtr is a bill of materials of ctr by cyclonedx-gomod.
func billOfCtr(t *testing.T, dir string) string {
	t.Helper()
	tool(t, dir, "cyclonedx-gomod", "bin", "-json", "-noserial", "-notimestamp", "-output", "bill.json", filepath.Join(os.Getenv("TRANSFER_REFERRERS_BIN"), "ctr"))
	data, err := os.ReadFile(filepath.Join(dir, "bill.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func vexDocument(t *testing.T, _ string) string {
	t.Helper()
	doc := vex.New()
	doc.Author = "Vendor"
	doc.Statements = []vex.Statement{{
		Vulnerability: vex.Vulnerability{Name: "CVE-2026-1"}, Products: []vex.Product{{Component: vex.Component{ID: "pkg:oci/app"}}},
		Status: vex.StatusNotAffected, Justification: vex.ComponentNotPresent,
	}}
	var out bytes.Buffer
	if err := doc.ToJSON(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func vsaDocument(t *testing.T, _ string) string {
	return message(t, &vsa.VerificationSummary{
		Verifier: &vsa.VerificationSummary_Verifier{Id: "https://verifier.example.com"}, TimeVerified: timestamppb.New(time.Unix(1.7e9, 0)),
		ResourceUri: "pkg:oci/app", Policy: &vsa.VerificationSummary_Policy{Uri: "https://policy.example.com/1"},
		VerificationResult: "PASSED", VerifiedLevels: []string{"SLSA_BUILD_LEVEL_3"},
	})
}
