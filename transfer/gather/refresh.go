package gather

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// known is what a pull learnt of a subject that bears on the referrers which an
// earlier pull tied to it. Nothing is gone because it was not heard of.
type known struct {
	began time.Time              // when it was asked for: what came later it cannot tell of
	whole bool                   // the registry itself was heard, to its end
	found map[digest.Digest]bool // listed, or under one of cosign's tags
	tags  map[string]bool        // artifact types whose tag of cosign's was answered for
}

func (k *known) add(dgst digest.Digest) {
	if k.found == nil {
		k.found = map[digest.Digest]bool{}
	}
	k.found[dgst] = true
}

func (k *known) listing(l discovery.Listing) {
	// A mirror may lag behind the registry, or hold a part.
	k.began = l.Began
	k.whole = (l.Status == discovery.Present || l.Status == discovery.Absent) && byRegistry(l.Answers)
	for _, r := range l.Referrers {
		k.add(r.Digest)
	}
	for _, r := range l.Rejected {
		k.add(r.Digest)
	}
}

// byRegistry reports whether the registry itself, rather than a mirror alone, answered.
func byRegistry(answers []discovery.Answer) bool {
	return slices.ContainsFunc(answers, func(a discovery.Answer) bool {
		return !a.Mirror && (a.Status == discovery.Present || a.Status == discovery.Absent)
	})
}

func (k *known) tag(artifactType string, found *discovery.CosignArtifact, answers []discovery.Answer) {
	if found != nil {
		k.add(found.Digest)
	}
	if found == nil && slices.ContainsFunc(answers, func(a discovery.Answer) bool { return a.Status != discovery.Absent }) {
		return
	}
	if !byRegistry(answers) {
		return
	}
	if k.tags == nil {
		k.tags = map[string]bool{}
	}
	k.tags[artifactType] = true
}

// answers reports whether the pull asked where the referrer would be found, and was
// answered in full.
func (k *known) answers(referrer map[string]string) bool {
	switch artifactType := referrer[labels.ArtifactType]; artifactType {
	case "":
		return k.whole
	case policy.TypeBuildKitAttestation:
		return false // in the image's index, which does not change
	default:
		return k.tags[artifactType]
	}
}

// refresh returns the labels of the subject to set, and with an empty value to
// remove, for the referrers that earlier pulls tied to it: those that the registry
// no longer lists are marked, or removed if the rule says so. Only what came from
// this repository alone is judged: an image of the same content elsewhere has
// referrers of its own; and not what another pull brought since this one asked.
func (g *Gather) refresh(ctx context.Context, s Subject, existing map[string]string, now time.Time) map[string]string {
	change := map[string]string{}
	for _, t := range s.Taken {
		s.known.add(t.Digest)
	}
	missed := map[digest.Digest]time.Time{}
	for _, dgst := range labels.Referrers(existing) {
		if s.known.found[dgst] {
			change[labels.Unlisted(dgst)] = ""
			continue
		}
		info, err := g.Store.Info(ctx, dgst)
		if err != nil {
			continue
		}
		if !g.source.only(info.Labels) || !s.known.answers(info.Labels) || info.UpdatedAt.After(s.known.began) {
			if s.Status == discovery.Absent { // here, or when this pull asked; not elsewhere
				change[labels.Status] = string(discovery.Present)
			}
			continue
		}
		if missed[dgst] = labels.UnlistedSince(existing, dgst); missed[dgst].IsZero() {
			missed[dgst] = now
		}
	}
	g.keepMissed(ctx, s, existing, missed, change)
	return change
}

// keepMissed marks what is no longer listed, or unties it where the rule prunes. A
// subject keeps no more of it than it may have referrers, those that were missed
// last: who signs anew every day must not fill the node's disk.
func (g *Gather) keepMissed(ctx context.Context, s Subject, existing map[string]string, missed map[digest.Digest]time.Time, change map[string]string) {
	most := g.Limits.MaxReferrers
	if g.Selection.Prune() {
		most = 0
	}
	if g.Keep {
		most = len(missed)
	}
	latest := slices.SortedFunc(maps.Keys(missed), func(a, b digest.Digest) int {
		return cmp.Or(missed[b].Compare(missed[a]), cmp.Compare(a, b))
	})
	for i, dgst := range latest {
		mark := labels.Unlisted(dgst)
		log := log.G(ctx).WithField("image", g.Name).WithField("subject", s.Digest).WithField("digest", dgst)
		switch {
		case i >= most:
			log.Info("referrers: no longer listed, removed")
			change[mark] = ""
			for _, key := range labels.Untie(existing, dgst) {
				change[key] = ""
			}
		case existing[mark] == "":
			log.Info("referrers: no longer listed, kept")
			change[mark] = missed[dgst].UTC().Format(time.RFC3339)
		}
	}
}
