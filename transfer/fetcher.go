package transfer

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// fetcherRegistry asks through containerd's own fetcher, where a source is used
// as it comes (only the stock local plugin is disabled, so that the stock gRPC
// service made the source). It reads one page, and cannot tell absent from
// failed, so that all it says leaves the subject unknown.
type fetcherRegistry struct {
	transfer.Fetcher
}

var _ gather.Registry = fetcherRegistry{}

const reducedHint = `add "io.containerd.grpc.v1.transfer" to disabled_plugins for a full answer`

// ListEach lists the one page that there is.
func (f fetcherRegistry) ListEach(ctx context.Context, subject digest.Digest, found func([]ocispec.Descriptor)) (discovery.Listing, error) {
	out, err := f.list(ctx, subject)
	found(out.Referrers)
	return out, err
}

func (f fetcherRegistry) list(ctx context.Context, subject digest.Digest) (discovery.Listing, error) {
	out := discovery.Listing{Subject: subject, Status: labels.Unknown}
	answer := outcome.Answer{Host: "containerd's fetcher", Via: outcome.EndpointFetcher, Request: "referrers", Status: labels.Unknown}
	if err := subject.Validate(); err != nil {
		return out, err
	}
	rf, ok := f.Fetcher.(remotes.ReferrersFetcher)
	if !ok {
		answer.Detail = "it cannot list referrers; " + reducedHint
		out.Answers = append(out.Answers, answer)
		return out, nil
	}
	listed, err := rf.FetchReferrers(ctx, subject)
	switch {
	case err != nil:
		answer.Detail = err.Error()
	case len(listed) == 0:
		answer.Detail = "it lists nothing, which it also does on errors; " + reducedHint
	default:
		answer.Detail = fmt.Sprintf("%d listed, maybe the first page of them; %s", len(listed), reducedHint)
	}
	out.Answers = append(out.Answers, answer)
	known := map[digest.Digest]bool{}
	for _, desc := range listed {
		switch err := artifact.Check(desc, artifact.MaxManifestSize); {
		case err != nil:
			out.Rejected = append(out.Rejected, discovery.Rejection{Descriptor: desc, Status: labels.Unknown, Reason: err.Error()})
		case known[desc.Digest]:
		case !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType):
			out.Rejected = append(out.Rejected, discovery.Rejection{Descriptor: desc, Status: labels.Unknown,
				Reason: fmt.Sprintf("media type %.80q is neither a manifest's nor an index's", desc.MediaType)})
		case len(known) == discovery.MaxEntries:
			return out, nil
		default:
			known[desc.Digest] = true
			out.Referrers = append(out.Referrers, desc)
		}
	}
	return out, nil
}

// CosignTag finds nothing: the fetcher has no tags.
func (f fetcherRegistry) CosignTag(context.Context, digest.Digest, discovery.CosignKind) (*discovery.CosignArtifact, []outcome.Answer) {
	return nil, nil
}

func (f fetcherRegistry) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := artifact.Check(desc, artifact.MaxManifestSize); err != nil {
		return nil, err
	}
	var data []byte
	err := f.Blob(ctx, desc, func(r io.Reader) (err error) {
		data, err = io.ReadAll(io.LimitReader(r, desc.Size+1))
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, artifact.Verify(data, desc)
}

func (f fetcherRegistry) Blob(ctx context.Context, desc ocispec.Descriptor, use func(io.Reader) error) error {
	rc, err := f.Fetch(ctx, ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size})
	if err != nil {
		return err
	}
	defer rc.Close()
	if err := use(rc); err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	return nil
}
