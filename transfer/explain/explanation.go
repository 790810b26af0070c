package explain

import (
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
)

// Explanation is what a pull would do, or a fetch did, and why.
type Explanation struct {
	Image  string        `json:"image"`
	Digest digest.Digest `json:"digest"`
	// Stored says that the image's root is in the content store.
	Stored bool `json:"stored"`
	// Rule names the rule that governs, Selection all that it says.
	Rule      string `json:"rule"`
	Selection string `json:"selection"`
	// Limits are those in force, CosignTags says when cosign's own tags are asked for.
	Limits     Limits `json:"limits,omitzero"`
	CosignTags string `json:"cosignTags,omitempty"`
	// Refused says why the pull would fail; empty where it would succeed.
	Refused string `json:"refused,omitempty"`
	// TimedOut says that the limit of time ended the search.
	TimedOut bool `json:"timedOut,omitempty"`
	// Unasked is how many manifests of the image were not asked about, over the
	// limit of subjects a pull.
	Unasked  int       `json:"unasked,omitempty"`
	Subjects []Subject `json:"subjects"`
}

// Limits bound what one pull may take; they are keys of the configuration.
type Limits struct {
	Timeout                string `json:"timeout"` // as time.Duration writes it
	MaxReferrers           int    `json:"maxReferrers"`
	MaxBlobSize            int64  `json:"maxBlobSize"`  // in bytes
	MaxTotalSize           int64  `json:"maxTotalSize"` // in bytes
	MaxConcurrentDownloads int    `json:"maxConcurrentDownloads"`
}

// Subject is a manifest or index that is asked about.
type Subject struct {
	Digest   digest.Digest    `json:"digest"`
	Platform string           `json:"platform,omitempty"`
	Image    bool             `json:"image"` // part of the image, not a referrer
	Stored   bool             `json:"stored"`
	Status   discovery.Status `json:"status"`
	Answers  []Answer         `json:"answers"`
	Taken    []Referrer       `json:"taken"`
	Left     []Referrer       `json:"left"`
}

// Answer is what one request to one host taught.
type Answer struct {
	Host string `json:"host"`
	// Mirror says that the host goes by another name than the registry.
	Mirror bool `json:"mirror,omitempty"`
	// Via is the way by which the host was asked, "" where none could be.
	Via     discovery.Via    `json:"via,omitempty"`
	Request string           `json:"request"`
	Code    int              `json:"code,omitempty"`
	Status  discovery.Status `json:"status,omitempty"`
	// Limit is the limit that cut the answer.
	Limit  string `json:"limit,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Referrer is one that is taken, or left; a request that failed has no digest.
type Referrer struct {
	Digest       digest.Digest `json:"digest,omitempty"`
	ArtifactType string        `json:"artifactType,omitempty"`
	// Via is how it came to be known: by a "listing", by a "cosign_tag" or by the
	// "image_index". Which listing that was the subject's answers tell.
	Via string `json:"via,omitempty"`
	// Stored says that it is stored, whole and tied to the subject; after a fetch,
	// by now.
	Stored bool   `json:"stored,omitempty"`
	Reason string `json:"reason"`
	// Status is what one that was left made of the subject's: unknown, truncated, or
	// "" where it does not matter to it.
	Status discovery.Status `json:"status,omitempty"`
	// Limit is the limit that kept it from being taken.
	Limit string `json:"limit,omitempty"`
}
