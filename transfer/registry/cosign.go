package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// CosignKind is what cosign v1 and v2 store beside an image under a tag of its
// own: no subject field, no listing.
type CosignKind struct {
	Suffix       string // of the tag sha256-<hex>
	ArtifactType string // that it is taken for
}

// Tag returns the tag under which cosign stores the subject's artifact of the kind. The
// digest must be valid.
func (k CosignKind) Tag(subject digest.Digest) string {
	return subject.Algorithm().String() + "-" + subject.Encoded() + k.Suffix
}

// CosignKinds are all that there are.
var CosignKinds = []CosignKind{
	{".sig", artifact.TypeCosignSignature},
	{".att", artifact.TypeCosignAttestation},
	{".sbom", artifact.TypeCosignSBOM},
}

// CosignArtifact is what was found under such a tag. It is read whole, since a
// tag can only be asked for what it points at now.
type CosignArtifact struct {
	ocispec.Descriptor
	Manifest []byte
}

// CosignTag looks for the subject's artifact of the kind at the hosts that may
// resolve tags. The artifact is nil unless the answer's status is Present.
// cosign only ever wrote tags for sha256.
func (r *Repository) CosignTag(ctx context.Context, subject digest.Digest, kind CosignKind) (*CosignArtifact, []outcome.Answer) {
	tag := kind.Tag(subject)
	request := "tag " + tag
	var answers []outcome.Answer
	add := func(h *Host, code int, status labels.Status, detail string) {
		a := outcome.Answer{Host: h.Host, Mirror: r.IsMirror(h), Via: outcome.EndpointCosignTag, Request: request, Code: code, Status: status, Detail: outcome.Shorten(detail)}
		if status == labels.Truncated {
			a.Limit = outcome.LimitManifest // a tag holds no listing
		}
		answers = append(answers, a)
	}
	hosts := r.Hosts(docker.HostCapabilityPull | docker.HostCapabilityResolve)
	if len(hosts) == 0 {
		return nil, []outcome.Answer{{Host: r.Name(), Request: request, Detail: `not asked: no host may resolve tags (capability "resolve" in hosts.toml)`}}
	}
	for _, h := range hosts {
		a, err := r.Get(ctx, h, r.URL(h, "manifests", tag), AcceptAny)
		switch {
		case a != nil && a.Code == http.StatusOK && !images.IsManifestType(a.MediaType()): // whatever its size
			add(h, a.Code, labels.Unknown, fmt.Sprintf("content type %q is no manifest", a.MediaType()))
		case errors.Is(err, ErrTooLarge):
			add(h, a.Code, labels.Truncated, err.Error())
		case err != nil:
			add(h, a.StatusCode(), labels.Unknown, err.Error())
		case a.Code == http.StatusNotFound:
			add(h, a.Code, labels.Absent, "")
		case a.Code != http.StatusOK:
			add(h, a.Code, labels.Unknown, http.StatusText(a.Code))
		default:
			add(h, a.Code, labels.Present, "")
			return &CosignArtifact{
				Descriptor: ocispec.Descriptor{
					MediaType:    a.MediaType(),
					ArtifactType: kind.ArtifactType,
					Digest:       digest.SHA256.FromBytes(a.Body),
					Size:         int64(len(a.Body)),
				},
				Manifest: a.Body,
			}, answers
		}
	}
	return nil, answers
}
