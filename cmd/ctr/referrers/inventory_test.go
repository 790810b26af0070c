package referrers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// An attestation whose predicate is an SBOM is one, and a referrer of two subjects is one entry.
func TestInventorySorts(t *testing.T) {
	const bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
	attested := func(predicate string) map[string]string {
		return map[string]string{"dev.sigstore.bundle.predicateType": predicate}
	}
	predicates := func(r stored.Referrer) []string {
		if p := r.Annotations["dev.sigstore.bundle.predicateType"]; p != "" {
			return []string{p}
		}
		return nil
	}
	image := inventoryImage{}
	both := stored.Referrer{Digest: digest.FromString("a"), ArtifactType: "application/spdx+json", Size: 1, ContentSize: 2}
	onRoot, onNode := both, both
	onRoot.Subject, onNode.Subject = root, node
	image.sort([]stored.Referrer{
		onRoot, onNode,
		{Digest: digest.FromString("b"), ArtifactType: bundle, Annotations: attested("https://spdx.dev/Document/v2.3")},
		{Digest: digest.FromString("c"), ArtifactType: bundle, Annotations: attested("https://slsa.dev/provenance/v1")},
		{Digest: digest.FromString("d"), ArtifactType: bundle, Annotations: attested("https://sigstore.dev/cosign/sign/v1"), Referrers: []stored.Referrer{
			{Digest: digest.FromString("e"), Subject: digest.FromString("d"), ArtifactType: "vex/openvex"},
		}},
	}, predicates)
	got := fmt.Sprint(len(image.SBOMs), len(image.Attestations), len(image.Signatures), len(image.Other))
	if got != "2 1 1 1" {
		t.Fatalf("SBOMs, attestations, signatures and others are %s", got)
	}
	subjects := []digest.Digest{root, node}
	slices.Sort(subjects)
	if s := image.SBOMs[0]; !slices.Equal(s.Subjects, subjects) || s.Size != 3 {
		t.Errorf("an SBOM of two subjects is %+v", s)
	}
}

// someInventory has all that a bill can show.
func someInventory() *inventory {
	return &inventory{Namespace: "k8s.io", Strays: []strayContainer{}, Images: []inventoryImage{
		{
			Digest: root, Status: labels.Present, Containers: []string{"one", "two"},
			Names: []imageName{{Image: "127.0.0.1:5000/team/App:v1+x", Result: verdict.Verified}, {Image: "example.com/app@" + root.String(), Error: "no"}},
			SBOMs: []inventoryReferrer{{Digest: digest.FromString("a"), ArtifactType: "application/spdx+json"}},
			Attestations: []inventoryReferrer{{Digest: digest.SHA512.FromString("b"), ArtifactType: "application/vnd.in-toto+json",
				PredicateTypes: []string{"https://slsa.dev/provenance/v1"}, Unlisted: now}},
			Signatures: []inventoryReferrer{{Digest: digest.FromString("c")}}, Other: []inventoryReferrer{{Digest: digest.FromString("d")}},
		},
		{Digest: node, Status: labels.Unknown, Names: []imageName{{Image: node.String()}}, Error: "not readable"},
	}}
}

// The bill has the fields, words and forms that the schema of CycloneDX 1.6 demands, and no others.
func TestBillHasTheShapeOfCycloneDX(t *testing.T) {
	data, err := json.Marshal(billOf(someInventory(), now))
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var got struct {
		BOMFormat, SpecVersion string
		Version                int
		Metadata               struct {
			Timestamp string
			Tools     struct{ Components []component }
			Component component
		}
		Components []component
	}
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.BOMFormat != "CycloneDX" || got.SpecVersion != "1.6" || got.Version < 1 {
		t.Errorf("the head is %+v", got)
	}
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`).MatchString(got.Metadata.Timestamp) {
		t.Errorf("timestamp %q", got.Metadata.Timestamp)
	}
	refs := map[string]bool{}
	for _, c := range slices.Concat(got.Components, got.Metadata.Tools.Components, []component{got.Metadata.Component}) {
		c.check(t)
		if c.Ref != "" && refs[c.Ref] {
			t.Errorf("bom-ref %s twice", c.Ref)
		}
		refs[c.Ref] = true
	}
	first := got.Components[0]
	wantPURL := "pkg:oci/app@sha256%3A" + root.Encoded() + "?repository_url=127.0.0.1%3A5000/team/App&tag=v1%2Bx"
	if first.Name != "127.0.0.1:5000/team/App" || first.Version != "v1+x" || first.PURL != wantPURL {
		t.Errorf("the image is %+v", first)
	}
	var kinds []string
	for _, r := range first.ExternalReferences {
		kinds = append(kinds, r.Type)
	}
	if strings.Join(kinds, " ") != "bom attestation digital-signature other" {
		t.Errorf("external references are %s", kinds)
	}
	if r := first.ExternalReferences[1]; r.URL != "oci://127.0.0.1:5000/team/App@"+digest.SHA512.FromString("b").String() ||
		r.Comment != "application/vnd.in-toto+json https://slsa.dev/provenance/v1, no longer listed since 2026-11-23T12:00:00Z" {
		t.Errorf("the attestation is %+v", r)
	}
	if c := got.Components[1]; c.Name != node.String() || c.PURL != "" {
		t.Errorf("an image without a repository is %+v", c)
	}
}

type component struct {
	Type, Name, Version, PURL string
	Ref                       string `json:"bom-ref"`
	Hashes                    []hash
	ExternalReferences        []struct {
		URL, Type, Comment string
		Hashes             []hash
	}
	Properties []struct{ Name, Value string }
}

type hash struct{ Alg, Content string }

// check holds a component to the schema's words.
func (c component) check(t *testing.T) {
	t.Helper()
	if !slices.Contains([]string{"application", "container", "platform"}, c.Type) || c.Name == "" {
		t.Errorf("component %+v", c)
	}
	hashes := c.Hashes
	for _, r := range c.ExternalReferences {
		if !slices.Contains([]string{"bom", "attestation", "digital-signature", "other"}, r.Type) {
			t.Errorf("external reference of type %q", r.Type)
		}
		if u, err := url.Parse(r.URL); err != nil || !u.IsAbs() {
			t.Errorf("external reference to %q: %v", r.URL, err)
		}
		hashes = append(hashes, r.Hashes...)
	}
	for _, h := range hashes {
		length := map[string]int{"SHA-256": 64, "SHA-384": 96, "SHA-512": 128}[h.Alg]
		if !regexp.MustCompile(fmt.Sprintf("^[0-9a-f]{%d}$", length)).MatchString(h.Content) || length == 0 {
			t.Errorf("hash %+v", h)
		}
	}
	for _, p := range c.Properties {
		if !strings.HasPrefix(p.Name, propertyPrefix) || p.Value == "" {
			t.Errorf("property %+v", p)
		}
	}
}

// What could not be read is an error, and what no daemon judges is not.
func TestInventoryEnds(t *testing.T) {
	i := someInventory()
	if err := i.ends(); ExitCode(err) != exitError || !strings.Contains(err.Error(), "1 of 2 images") {
		t.Errorf("error %v", err)
	}
	i.Images = i.Images[:1]
	if err := i.ends(); err != nil {
		t.Error(err)
	}
}
