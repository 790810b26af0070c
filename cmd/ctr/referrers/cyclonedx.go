package referrers

import (
	"net/url"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/opencontainers/go-digest"
)

// The part of CycloneDX 1.6 that an inventory needs (ECMA-424, bom-1.6.schema.json).

type bill struct {
	BOMFormat   string          `json:"bomFormat"`
	SpecVersion string          `json:"specVersion"`
	Version     int             `json:"version"`
	Metadata    billMetadata    `json:"metadata"`
	Components  []billComponent `json:"components"`
}

type billMetadata struct {
	Timestamp string        `json:"timestamp"`
	Tools     billTools     `json:"tools"`
	Component billComponent `json:"component"`
}

type billTools struct {
	Components []billComponent `json:"components"`
}

type billComponent struct {
	Type       string          `json:"type"`
	BOMRef     string          `json:"bom-ref,omitempty"`
	Name       string          `json:"name"`
	Version    string          `json:"version,omitempty"`
	Hashes     []billHash      `json:"hashes,omitempty"`
	PURL       string          `json:"purl,omitempty"`
	References []billReference `json:"externalReferences,omitempty"`
	Properties []billProperty  `json:"properties,omitempty"`
}

type billHash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type billReference struct {
	URL     string     `json:"url"`
	Type    string     `json:"type"`
	Comment string     `json:"comment,omitempty"`
	Hashes  []billHash `json:"hashes,omitempty"`
}

type billProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// propertyPrefix begins the names of properties that are this project's own.
const propertyPrefix = "transfer-referrers:"

// billOf writes an inventory as a bill of materials: the namespace is the subject, and each image
// a component. SBOMs are not copied into it but referred to, so that they keep their signatures.
func billOf(i *inventory, now time.Time) *bill {
	b := &bill{BOMFormat: "CycloneDX", SpecVersion: "1.6", Version: 1, Components: []billComponent{}}
	b.Metadata = billMetadata{
		Timestamp: now.UTC().Format(time.RFC3339),
		Tools:     billTools{Components: []billComponent{{Type: "application", Name: "ctr referrers inventory"}}},
		Component: billComponent{Type: "platform", BOMRef: "containerd-namespace:" + i.Namespace, Name: "containerd namespace " + i.Namespace},
	}
	for _, image := range i.Images {
		b.Components = append(b.Components, imageComponent(image))
	}
	return b
}

func imageComponent(image inventoryImage) billComponent {
	c := billComponent{Type: "container", BOMRef: image.Digest.String(), Name: image.Digest.String(), Version: image.Digest.String(), Hashes: hashesOf(image.Digest)}
	property := func(name, value string) {
		if value != "" {
			c.Properties = append(c.Properties, billProperty{propertyPrefix + name, value})
		}
	}
	repository := ""
	for _, n := range image.Names {
		property("name", n.Image)
		if spec, err := reference.Parse(n.Image); err == nil && repository == "" && !isDigest(n.Image) {
			repository = spec.Locator
			tag, _, _ := strings.Cut(spec.Object, "@")
			if c.Name = repository; tag != "" {
				c.Version = tag
			}
			c.PURL = purlOf(repository, tag, image.Digest)
		}
		if n.Result != "" {
			property("verdict", n.Image+" "+string(n.Result))
		}
	}
	for _, id := range image.Containers {
		property("container", id)
	}
	property("status", string(image.Status))
	property("error", image.Error)
	for _, list := range []struct {
		kind      string
		referrers []inventoryReferrer
	}{{"bom", image.SBOMs}, {"attestation", image.Attestations}, {"digital-signature", image.Signatures}, {"other", image.Other}} {
		for _, r := range list.referrers {
			c.References = append(c.References, referenceTo(list.kind, repository, r))
		}
	}
	return c
}

// referenceTo names a referrer by where it lies beside the image. That the registry may list it no
// longer is said.
func referenceTo(kind, repository string, r inventoryReferrer) billReference {
	comment := strings.Join(append([]string{r.ArtifactType}, r.PredicateTypes...), " ")
	if !r.Unlisted.IsZero() {
		comment += ", no longer listed since " + r.Unlisted.Format(time.RFC3339)
	}
	address := "urn:oci:" + r.Digest.String()
	if repository != "" {
		address = "oci://" + repository + "@" + r.Digest.String()
	}
	return billReference{URL: address, Type: kind, Comment: strings.TrimSpace(comment), Hashes: hashesOf(r.Digest)}
}

// purlOf is the package URL of type oci (purl-spec, "oci").
func purlOf(repository, tag string, dgst digest.Digest) string {
	name := strings.ToLower(repository[strings.LastIndexByte(repository, '/')+1:])
	qualifiers := "repository_url=" + strings.ReplaceAll(url.QueryEscape(repository), "%2F", "/")
	if tag != "" {
		qualifiers += "&tag=" + url.QueryEscape(tag)
	}
	return "pkg:oci/" + name + "@" + url.QueryEscape(dgst.String()) + "?" + qualifiers
}

// hashesOf writes a digest with CycloneDX's name for its algorithm; none for one that it has no
// name for.
func hashesOf(dgst digest.Digest) []billHash {
	name := map[digest.Algorithm]string{digest.SHA256: "SHA-256", digest.SHA384: "SHA-384", digest.SHA512: "SHA-512"}[dgst.Algorithm()]
	if name == "" {
		return nil
	}
	return []billHash{{name, dgst.Encoded()}}
}
