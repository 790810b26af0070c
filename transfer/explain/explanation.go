package explain

import (
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
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
	// Memory is what the requests used of what the daemon remembers of the registry.
	Memory []outcome.Memory `json:"memory"`
	// Refused says why the pull would fail; empty where it would succeed.
	Refused string `json:"refused,omitempty"`
	// Verdict is that of a rule that verifies the image, or denies it; nil where none does.
	Verdict *verdict.Verdict `json:"verdict,omitempty"`
	// RetryAfter is how long the hosts that had no answer want to be left alone, as
	// time.Duration writes it; 10 minutes at most.
	RetryAfter string `json:"retryAfter,omitempty"`
	// TimedOut says that the limit of time ended the search.
	TimedOut bool `json:"timedOut,omitempty"`
	// Unasked is how many manifests of the image were not asked about, over the
	// limit of subjects a pull.
	Unasked  int               `json:"unasked,omitempty"`
	Subjects []outcome.Subject `json:"subjects"`
}

// Limits bound what one pull may take; they are keys of the configuration.
type Limits struct {
	Timeout                string `json:"timeout"` // as time.Duration writes it
	MaxReferrers           int    `json:"maxReferrers"`
	MaxBlobSize            int64  `json:"maxBlobSize"`  // in bytes
	MaxTotalSize           int64  `json:"maxTotalSize"` // in bytes
	MaxConcurrentDownloads int    `json:"maxConcurrentDownloads"`
}
