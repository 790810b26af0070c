package registry

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
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

// errNoListing marks an answer that says yes and is no listing: a login page, an error
// with a good code, an empty body.
var errNoListing = errors.New("no listing")

// parseListing reads the listing that an answer holds. What it is by its content type
// comes before its size: a login page is none, however large. The error is errNoListing,
// [ErrTooLarge], or says what was answered.
func parseListing(a *Response, err error) (*artifact.Index, error) {
	switch {
	case a != nil && a.Code == http.StatusOK && !mayList(a.MediaType()):
		return nil, fmt.Errorf("%w: content type %q", errNoListing, a.MediaType())
	case errors.Is(err, ErrTooLarge) && a.MediaType() != ocispec.MediaTypeImageIndex:
		return nil, fmt.Errorf("%w: content type %q, and larger than what could say that it is one", errNoListing, a.MediaType())
	case err != nil:
		return nil, err
	case a.Code/100 == 2 && a.Code != http.StatusOK:
		return nil, fmt.Errorf("%w: %d %s", errNoListing, a.Code, http.StatusText(a.Code))
	case a.Code != http.StatusOK:
		return nil, errors.New(http.StatusText(a.Code))
	}
	index, err := artifact.ParseIndex(a.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNoListing, err)
	case a.MediaType() != ocispec.MediaTypeImageIndex && index.MediaType == "":
		return nil, fmt.Errorf("%w: content type %q, and it does not say that it is an image index", errNoListing, a.MediaType())
	}
	return index, nil
}

// mayList says which content types a listing may have (OCI distribution-spec, "Listing
// Referrers"). Harbor before 2.11 writes the other.
func mayList(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == "application/json"
}
