package outcome

import (
	"fmt"
	"strings"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// Endpoint is what a host was asked at for the referrers of a subject.
type Endpoint string

// The endpoints.
const (
	// EndpointReferrers is the referrers API.
	EndpointReferrers Endpoint = "endpoint"
	// EndpointFallbackTag is the tag that holds the listing where a host has no such
	// API.
	EndpointFallbackTag Endpoint = "fallback_tag"
	// EndpointCosignTag is a tag of cosign's own.
	EndpointCosignTag Endpoint = "cosign_tag"
)

// Answer is what one request to one host taught.
type Answer struct {
	Host string `json:"host"`
	// Mirror says that the host goes by another name than the registry.
	Mirror bool `json:"mirror,omitempty"`
	// Via is the endpoint that was asked, "" where no host could be.
	Via     Endpoint `json:"via,omitempty"`
	Request string   `json:"request"`        // "referrers", "referrers, page 2", "tag sha256-…"
	Code    int      `json:"code,omitempty"` // HTTP status; 0 where none came
	// Status is "" where the host cannot tell.
	Status labels.Status `json:"status,omitempty"`
	// Limit is the limit that cut the answer, "" where none did.
	Limit  Limit  `json:"limit,omitempty"`
	Detail string `json:"detail,omitempty"`
}

func (a Answer) String() string {
	s := a.Host + ": " + a.Request
	if a.Status != "" {
		s += ": " + string(a.Status)
	}
	if a.Code != 0 {
		s += fmt.Sprintf(" (HTTP %d)", a.Code)
	}
	if a.Detail != "" {
		s += ": " + a.Detail
	}
	return s
}

// Shorten cuts text from the network to a length that logs and error messages
// bear.
func Shorten(s string) string {
	const most = 300
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
