// Package outcome holds what a pull found of its image's referrers, took and skipped,
// and why: the values that package gather makes and that a rule's verdict, the log,
// metrics and `ctr referrers explain` read. Their JSON is that of explain's answer.
//
// The package is pure: no I/O and no clock.
package outcome

import (
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// Outcome is what a pull learnt of its referrers.
type Outcome struct {
	Subjects []Subject
	// Bytes are those of the manifests and blobs that were written to the
	// store; what was there already does not count.
	Bytes int64
	// TimedOut says that the limit of time ended the gather.
	TimedOut bool
	// Unasked is how many manifests of the image were not asked about, as one
	// pull has a limit of subjects.
	Unasked int
}

// Subject is what is known of one subject.
type Subject struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"-"`
	Size      int64         `json:"-"`
	// Platform is set by explain: that of a platform manifest.
	Platform string `json:"platform,omitempty"`
	// Image says that the subject belongs to the image itself, rather than
	// to a referrer of it.
	Image bool `json:"image"`
	// Parents are the indexes of the image that name the subject.
	Parents []digest.Digest `json:"-"`
	// Stored is set by explain: the subject is in the content store.
	Stored  bool          `json:"stored"`
	Status  labels.Status `json:"status"`
	Answers []Answer      `json:"answers"`
	Taken   []Referrer    `json:"taken"`
	Skipped []Referrer    `json:"left"`
	// Why says in one line how the status came about.
	Why string `json:"-"`
}

// Referrer is one that was taken or skipped, or stands for a request that failed (then
// without a digest).
type Referrer struct {
	Digest       digest.Digest `json:"digest,omitempty"`
	ArtifactType string        `json:"artifactType,omitempty"`
	// Via is how the pull came to know of it, "" for a listing that failed.
	Via Origin `json:"via,omitempty"`
	// Stored is set by explain: the referrer is stored, whole and tied to its subject;
	// after a fetch, by now.
	Stored bool `json:"stored,omitempty"`
	// Reason is the rule and pattern by which it was taken, or why it was not.
	Reason string `json:"reason"`
	// Status is what one that was skipped made of the subject's: unknown, truncated, or
	// "" where it does not matter to it.
	Status labels.Status `json:"status,omitempty"`
	// Limit is the limit that refused it, "" where none did.
	Limit Limit `json:"limit,omitempty"`

	// Size is that of the manifest of one that was taken, in bytes; Annotations and Hollow
	// are the manifest's own.
	Size        int64             `json:"-"`
	Annotations map[string]string `json:"-"`
	Hollow      bool              `json:"-"`
}

// Origin is how a pull came to know of a referrer.
type Origin string

// The origins.
const (
	Listed   Origin = "listing"     // the registry's
	Tagged   Origin = "cosign_tag"  // a tag of cosign's
	Embedded Origin = "image_index" // the image's own index
)

// Artifact returns what policy decides by.
func (r Referrer) Artifact() artifact.Referrer {
	return artifact.Referrer{ArtifactType: r.ArtifactType, Annotations: r.Annotations, Hollow: r.Hollow}
}

func (r Referrer) String() string {
	if r.Digest == "" {
		return r.Reason
	}
	return fmt.Sprintf("%s: %s", r.Digest, r.Reason)
}

// Artifacts returns what policy decides by of each.
func Artifacts(referrers []Referrer) []artifact.Referrer {
	var out []artifact.Referrer
	for _, r := range referrers {
		out = append(out, r.Artifact())
	}
	return out
}

// Doubts says in a line each what made the status unknown or truncated: answers of
// hosts, and referrers that could not be taken. Why has all the rest as well.
func (s Subject) Doubts() []string {
	var out []string
	for _, a := range s.Answers {
		if a.Status.Incomplete() {
			out = append(out, a.String())
		}
	}
	for _, r := range s.Skipped {
		if r.Status.Incomplete() {
			out = append(out, r.String())
		}
	}
	return out
}

// Status is the worst among the image's own subjects. An image with more manifests than
// were asked about is truncated at least.
func (o *Outcome) Status() labels.Status {
	status := labels.Status("")
	if o.Unasked > 0 {
		status = labels.Truncated
	}
	for _, s := range o.Subjects {
		if s.Image {
			status = status.Worse(s.Status)
		}
	}
	return status
}
