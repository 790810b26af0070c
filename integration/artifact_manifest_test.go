package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// artifactManifest is the manifest of a release candidate of OCI image-spec 1.1, which
// older versions of oras and notation wrote.
type artifactManifest struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Blobs        []ocispec.Descriptor `json:"blobs,omitempty"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations,omitempty"`
}

// Manifests of OCI artifacts are referrers like others: a rule that refuses what is not
// known takes them, and they are listed, exported and imported.
func TestArtifactManifestsAreTaken(t *testing.T) {
	reg := startRegistry(t, registry.Olareg)
	image := pushSmall(t, reg, "app", "v1", "image")
	subject := subjectOf(image.Descriptor)
	manifests := map[string][]byte{}
	// add serves a manifest beside those of the registry, which takes none of that type.
	var listed []ocispec.Descriptor
	var want []string
	var content []digest.Digest
	add := func(artifactType string, subject ocispec.Descriptor, blobs ...string) ocispec.Descriptor {
		m := artifactManifest{MediaType: artifact.MediaTypeArtifactManifest, ArtifactType: artifactType, Subject: &subject}
		for _, blob := range blobs {
			m.Blobs = append(m.Blobs, described("text/plain", blob))
			if _, err := reg.PushBlob(testContext(t), "app", []byte(blob)); err != nil {
				t.Fatal(err)
			}
			content = append(content, digest.FromString(blob))
		}
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		desc := ocispec.Descriptor{MediaType: m.MediaType, ArtifactType: artifactType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		manifests[desc.Digest.String()] = data
		content = append(content, desc.Digest)
		want = append(want, fmt.Sprintf("%s of %s: %s", desc.Digest, subject.Digest, artifactType))
		return desc
	}
	listed = append(listed,
		add("application/vnd.cncf.notary.signature", subject, "signature"),
		add("application/spdx+json", subject, "first half", "second half"),
		add("application/vnd.example.empty", subject))
	nested := add("application/vnd.cncf.notary.signature", subjectOf(listed[1]), "signature of the SBOM")
	slices.Sort(want)
	serve := func(w http.ResponseWriter, mediaType string, data []byte) bool {
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
		_, _ = w.Write(data)
		return true
	}
	reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		dgst := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if data := manifests[dgst]; strings.Contains(r.URL.Path, "/manifests/") && data != nil {
			return serve(w, artifact.MediaTypeArtifactManifest, data)
		}
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		index := imageIndex(nil)
		switch dgst {
		case subject.Digest.String():
			index.Manifests = listed
		case listed[1].Digest.String():
			index.Manifests = []ocispec.Descriptor{nested}
		default:
			index.Manifests = []ocispec.Descriptor{}
		}
		data, err := json.Marshal(index)
		if err != nil {
			t.Error(err)
		}
		return serve(w, ocispec.MediaTypeImageIndex, data)
	})

	d := startDaemon(t, active(rule(`artifact_types = ["all"]`, `required = ["signatures"]`, `on_error = "fail"`)))
	name := reg.Host + "/app:v1"
	pull(t, d, name, "--plain-http")
	pull(t, d, name, "--plain-http")
	collect(t, d)
	read := ls(t, d, name)
	if got := tied(read.Referrers); !slices.Equal(got, want) || read.Status != labels.Present {
		t.Errorf("%s, tied are\n %s\nwant\n %s", read.Status, strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
	for _, r := range read.Referrers {
		if r.MediaType != artifact.MediaTypeArtifactManifest {
			t.Errorf("%s has media type %q", r.Digest, r.MediaType)
		}
	}
	if lost := damaged(t, d, content); len(lost) > 0 {
		t.Errorf("not stored: %v", lost)
	}
	path := exportedFrom(t, d, name)
	wantWholeArchive(t, path)
	removed(t, d)
	imported(t, d, path, name, image.Digest)
	if got := tied(ls(t, d, name).Referrers); !slices.Equal(got, want) {
		t.Errorf("an import ties\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
	if lost := damaged(t, d, content); len(lost) > 0 {
		t.Errorf("not imported: %v", lost)
	}
	removed(t, d)

	// An archive that says nothing of its referrers knows them by their subject field.
	path = rewritten(t, path, func(index *ocispec.Index) {
		for i := range index.Manifests[1:] {
			index.Manifests[i+1].Annotations = nil
		}
	})
	imported(t, d, path, name, image.Digest)
	if got := tied(ls(t, d, name).Referrers); !slices.Equal(got, want) {
		t.Errorf("an import by subject fields ties\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
	removed(t, d)
}
