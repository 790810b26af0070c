// Package discovery asks a registry what refers to one subject, and answers with
// a [Listing] that never says "absent" where the truth is "unknown".
//
// [Registry.List] asks the referrers endpoint (OCI distribution-spec, "Listing
// Referrers") page by page and, where a host has no such endpoint, the fallback
// tag. [Registry.CosignTag] looks for what cosign stored before referrers existed. Both
// only find; whether to take what they found is for the policy to say.
package discovery

import (
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Status is what is known of a subject's referrers.
type Status string

// The statuses of a listing.
const (
	// Present says that the registry listed referrers, all of them.
	Present Status = "present"
	// Absent says that every host asked answered that there are none.
	Absent Status = "absent"
	// Unknown says that it could not be learnt, at least not in full.
	Unknown Status = "unknown"
	// Truncated says that there are more than a limit let in.
	Truncated Status = "truncated"
)

// Worse returns the status of two that says less: unknown, then truncated, then
// present, then absent.
func (s Status) Worse(t Status) Status {
	rank := map[Status]int{Absent: 1, Present: 2, Truncated: 3, Unknown: 4}
	if rank[t] > rank[s] {
		return t
	}
	return s
}

// Listing is the answer to "what refers to this subject?".
type Listing struct {
	Subject digest.Digest
	Began   time.Time // before the first request
	Status  Status
	// Referrers are the descriptors listed, each once, in the registry's
	// order. Their digests are well formed, and their sizes, which may be wrong,
	// are cut to what a manifest may have; all else about them is the registry's
	// claim. One of which entries of the same digest say different things has no
	// artifact type and no annotations.
	Referrers []ocispec.Descriptor
	// Rejected are the entries that cannot be what they claim.
	Rejected []Rejection
	// Answers are the requests made, and what came of each.
	Answers []Answer
}

// Rejection is an entry of a listing that is not looked at further.
type Rejection struct {
	ocispec.Descriptor
	// Status is what the entry makes of the subject's, if it was wanted:
	// unknown, truncated, or "" for an entry that no one can want.
	Status Status
	Reason string
}

// Via is the way by which a host was asked.
type Via string

// The ways to ask.
const (
	// ViaEndpoint is the referrers endpoint.
	ViaEndpoint Via = "endpoint"
	// ViaFallbackTag is the tag that holds the listing where a host has no
	// such endpoint.
	ViaFallbackTag Via = "fallback_tag"
	// ViaCosignTag is a tag of cosign's own.
	ViaCosignTag Via = "cosign_tag"
)

// Answer is what one request taught.
type Answer struct {
	Host    string
	Mirror  bool   // the host goes by another name than the registry
	Via     Via    // "" where no host could be asked
	Request string // "referrers", "page 2", "tag sha256-…"
	Code    int    // HTTP status; 0 where none came
	Status  Status // "" where the host cannot tell
	Detail  string
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
