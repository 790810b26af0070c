package outcome

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

// MaxSubjects is how many manifests of the image one pull asks about, how many of their
// referrers, and how many referrers it takes. Referrers of referrers multiply: a hundred
// each make ten thousand at depth 2. Those of the image have a limit of their own, so that
// no registry can use it up before all platforms have been asked about.
const MaxSubjects = 1000

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
			if a.Limit != "" {
				out[a.Limit]++
			}
		}
		for _, r := range s.Skipped {
			if r.Limit != "" {
				out[r.Limit]++
			}
		}
	}
	return out
}
