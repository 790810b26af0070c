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
// resolve tags, one after the other as for a listing (see askInTurn). The artifact is nil
// unless the answer's status is Present. cosign only ever wrote tags for sha256.
func (r *Repository) CosignTag(ctx context.Context, subject digest.Digest, kind CosignKind) (*CosignArtifact, []outcome.Answer) {
	tag := kind.Tag(subject)
	request := "tag " + tag
	hosts := r.Hosts(docker.HostCapabilityPull | docker.HostCapabilityResolve)
	if len(hosts) == 0 {
		return nil, []outcome.Answer{{Host: r.Name(), Request: request, Detail: `not asked: no host may resolve tags (capability "resolve" in hosts.toml)`}}
	}
	var found *CosignArtifact
	var answers []outcome.Answer
	add := func(h *Host, a outcome.Answer) {
		a.Host, a.Mirror, a.Via, a.Request = h.Host, r.IsMirror(h), outcome.EndpointCosignTag, request
		answers = append(answers, a)
	}
	passed := r.askInTurn(hosts, func(r *Repository, h *Host) (answered, end bool) {
		var a outcome.Answer
		found, a = r.cosignTagAt(ctx, h, tag, kind)
		add(h, a)
		return a.Status != labels.Unknown, found != nil
	})
	for _, h := range passed {
		add(h, outcome.Answer{Status: labels.Unknown, Detail: h.health.notAsked()})
	}
	return found, answers
}

// cosignTagAt reads the tag at one host.
func (r *Repository) cosignTagAt(ctx context.Context, h *Host, tag string, kind CosignKind) (*CosignArtifact, outcome.Answer) {
	a, err := r.Get(ctx, h, r.URL(h, "manifests", tag), AcceptAny)
	answer := outcome.Answer{Code: a.StatusCode(), Status: labels.Unknown}
	switch {
	case a != nil && a.Code == http.StatusOK && !images.IsManifestType(a.MediaType()): // whatever its size
		answer.Detail = outcome.Shorten(fmt.Sprintf("content type %q is no manifest", a.MediaType()))
	case errors.Is(err, ErrTooLarge):
		answer.Status, answer.Detail = labels.Truncated, outcome.Shorten(err.Error())
		answer.Limit = outcome.LimitManifest // a tag holds no listing
	case err != nil:
		answer.Detail = outcome.Shorten(err.Error())
	case a.Code == http.StatusNotFound:
		answer.Status = labels.Absent
	case a.Code != http.StatusOK:
		answer.Detail = http.StatusText(a.Code)
	default:
		answer.Status = labels.Present
		return &CosignArtifact{
			Descriptor: ocispec.Descriptor{
				MediaType:    a.MediaType(),
				ArtifactType: kind.ArtifactType,
				Digest:       digest.SHA256.FromBytes(a.Body),
				Size:         int64(len(a.Body)),
			},
			Manifest: a.Body,
		}, answer
	}
	return nil, answer
}
