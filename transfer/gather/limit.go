package gather

import (
	"errors"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
)

// Limit names a limit that kept something from being taken or asked for.
type Limit string

// The limits. Those that the operator sets have the names of their keys.
const (
	LimitReferrers Limit = "max_referrers"
	LimitBlobSize  Limit = "max_blob_size"
	LimitTotalSize Limit = "max_total_size"
	LimitTimeout   Limit = "timeout"
	// LimitPull is that of referrers one pull takes in all.
	LimitPull Limit = "referrers_per_pull"
	// LimitSubjects is that of subjects one pull asks about.
	LimitSubjects Limit = "subjects_per_pull"
	// LimitManifest is any of a manifest: its bytes, children and nesting.
	LimitManifest Limit = "manifest"
	// LimitListing is any of a listing: its bytes, entries and pages.
	LimitListing Limit = "listing"
	// LimitOther is any other, as that of redirects.
	LimitOther Limit = "other"
)

// AllLimits are all of them.
var AllLimits = []Limit{
	LimitReferrers, LimitBlobSize, LimitTotalSize, LimitTimeout,
	LimitPull, LimitSubjects, LimitManifest, LimitListing, LimitOther,
}

// Refusals counts what each limit refused: referrers, listings that were cut, and
// once the time that ran out.
func (o *Outcome) Refusals() map[Limit]int {
	out := map[Limit]int{}
	if o.TimedOut {
		out[LimitTimeout]++
	}
	if o.Unasked > 0 {
		out[LimitSubjects] += o.Unasked
	}
	for _, s := range o.Subjects {
		for _, a := range s.Answers {
			if l := LimitOfAnswer(a); l != "" {
				out[l]++
			}
		}
		for _, l := range s.Left {
			if l.Limit != "" {
				out[l.Limit]++
			}
		}
	}
	return out
}

// LimitOfAnswer returns the limit that cut a host's answer, "" where none did.
func LimitOfAnswer(a discovery.Answer) Limit {
	switch {
	case a.Status != discovery.Truncated:
		return ""
	case a.Via == discovery.ViaCosignTag: // which holds no listing but a manifest
		return LimitManifest
	}
	return LimitListing
}

// limitError says which limit an error is of.
type limitError struct {
	error
	limit Limit
}

func (e limitError) Unwrap() error { return e.error }

// over marks an error with its limit, where it is of one.
func over(limit Limit, err error) error {
	if !errdefs.IsResourceExhausted(err) {
		return err
	}
	return limitError{err, limit}
}

// limitOf returns the limit that an errdefs.ErrResourceExhausted is of.
func limitOf(err error) Limit {
	var l limitError
	switch {
	case errors.As(err, &l):
		return l.limit
	case errors.Is(err, remote.ErrTooLarge): // blobs are not read whole
		return LimitManifest
	}
	return LimitOther
}
