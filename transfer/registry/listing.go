package registry

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

// Listing is the answer to "what refers to this subject?".
type Listing struct {
	Subject digest.Digest
	Began   time.Time // before the first request
	Status  labels.Status
	// Referrers are the descriptors listed, each once, in the registry's
	// order. Their digests are well formed, and their sizes, which may be wrong,
	// are cut to what a manifest may have; all else about them is the registry's
	// claim. One of which entries of the same digest say different things has no
	// artifact type and no annotations.
	Referrers []ocispec.Descriptor
	// Rejected are the entries that cannot be what they claim.
	Rejected []Rejection
	// Answers are the requests made, and what came of each.
	Answers []outcome.Answer
}

// Rejection is an entry of a listing that is not looked at further.
type Rejection struct {
	ocispec.Descriptor
	// Status is what the entry makes of the subject's, if it was wanted:
	// unknown, truncated, or "" for an entry that no one can want.
	Status labels.Status
	Reason string
}
