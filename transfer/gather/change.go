package gather

import (
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// Change is a referrer of a subject that came, or that the registry has withdrawn.
type Change struct {
	Subject, Referrer digest.Digest
	// Withdrawn says that the registry lists it no longer; without it the referrer was tied,
	// or is listed again.
	Withdrawn bool
}

// Changes returns what Tie and MarkMissing have changed, once they have ended without an error.
func (g *Gather) Changes() []Change { return g.changes }

// changesOf compares what a subject's labels said, for the repository, with what they are set to.
func changesOf(subject digest.Digest, existing, set map[string]string, repository string) []Change {
	var out []Change
	before := labels.Referrers(existing)
	after := maps.Clone(existing)
	if after == nil {
		after = map[string]string{}
	}
	for key, value := range set {
		if after[key] = value; value == "" {
			delete(after, key)
		}
	}
	now := labels.Referrers(after)
	for _, dgst := range now {
		listed, was := labels.UnlistedSince(after, dgst, repository).IsZero(), labels.UnlistedSince(existing, dgst, repository).IsZero()
		known := slices.Contains(before, dgst)
		switch {
		case listed && (!known || !was):
			out = append(out, Change{Subject: subject, Referrer: dgst})
		case !listed && known && was:
			out = append(out, Change{Subject: subject, Referrer: dgst, Withdrawn: true})
		}
	}
	for _, dgst := range before { // a rule that prunes unties at once
		if !slices.Contains(now, dgst) && labels.UnlistedSince(existing, dgst, repository).IsZero() {
			out = append(out, Change{Subject: subject, Referrer: dgst, Withdrawn: true})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(string(a.Referrer), string(b.Referrer)) })
	return out
}
