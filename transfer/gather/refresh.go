package gather

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// inquiry is what a pull asked of a subject, and learnt, that bears on the referrers which an
// earlier pull tied to it. Nothing is gone because it was not heard of.
type inquiry struct {
	began    time.Time              // when it was asked for: what came later it cannot tell of
	complete bool                   // the registry itself was heard, to its end
	found    map[digest.Digest]bool // listed, or under one of cosign's tags
	tags     map[string]bool        // artifact types whose tag of cosign's was answered for
}

func (q *inquiry) add(dgst digest.Digest) {
	if q.found == nil {
		q.found = map[digest.Digest]bool{}
	}
	q.found[dgst] = true
}

func (q *inquiry) listing(l registry.Listing) {
	// A mirror may lag behind the registry, or hold a part.
	q.began = l.Began
	q.complete = (l.Status == labels.Present || l.Status == labels.Absent) && byRegistry(l.Answers)
	for _, r := range l.Referrers {
		q.add(r.Digest)
	}
	for _, r := range l.Rejected {
		q.add(r.Digest)
	}
}

// byRegistry reports whether the registry itself, rather than a mirror alone, answered.
func byRegistry(answers []outcome.Answer) bool {
	return slices.ContainsFunc(answers, func(a outcome.Answer) bool {
		return !a.Mirror && (a.Status == labels.Present || a.Status == labels.Absent)
	})
}

func (q *inquiry) tag(artifactType string, found *registry.CosignArtifact, answers []outcome.Answer) {
	if found != nil {
		q.add(found.Digest)
	}
	if found == nil && slices.ContainsFunc(answers, func(a outcome.Answer) bool { return a.Status != labels.Absent }) {
		return
	}
	if !byRegistry(answers) {
		return
	}
	if q.tags == nil {
		q.tags = map[string]bool{}
	}
	q.tags[artifactType] = true
}

// answers reports whether the pull asked where the referrer would be found, and was
// answered in full.
func (q *inquiry) answers(referrer map[string]string) bool {
	switch artifactType := referrer[labels.ArtifactTypeKey]; artifactType {
	case "":
		return q.complete
	case artifact.TypeBuildKitAttestation:
		return false // in the image's index, which does not change
	default:
		return q.tags[artifactType]
	}
}

// outdates reports whether the pull asked where the referrer would be found, was answered in
// full, and no other pull has stored or labelled it since.
func (q *inquiry) outdates(referrer content.Info) bool {
	return q.answers(referrer.Labels) && !referrer.UpdatedAt.After(q.began)
}

// refresh returns the labels of the subject to set, and with an empty value to
// remove, for the referrers that earlier pulls tied to it: those that the repository
// no longer lists are marked, or removed if the rule says so. Only what came from
// this repository is judged, and removed only what came from no other: an image of the
// same content elsewhere has referrers of its own; and not what another pull brought
// since this one asked.
func (g *Gather) refresh(ctx context.Context, s outcome.Subject, asked *inquiry, existing map[string]string, now time.Time) map[string]string {
	change := map[string]string{}
	for _, t := range s.Taken {
		asked.add(t.Digest)
	}
	missed := map[digest.Digest]time.Time{}
	for _, dgst := range labels.Referrers(existing) {
		mark := labels.Unlisted(dgst)
		if asked.found[dgst] {
			change[mark] = labels.RemoveUnlisted(existing[mark], g.source.locator)
			continue
		}
		info, err := g.config.Store.Info(ctx, dgst)
		if err != nil {
			continue
		}
		if !g.source.only(info.Labels) || !asked.outdates(info) {
			if g.source.among(info.Labels) && asked.outdates(info) { // others may list it
				change[mark] = labels.AddUnlisted(existing[mark], now, g.source.locator)
			}
			if s.Status == labels.Absent { // here, or when this pull asked; not elsewhere
				change[labels.StatusKey] = string(labels.Present)
			}
			continue
		}
		if missed[dgst] = labels.UnlistedSince(existing, dgst, g.source.locator); missed[dgst].IsZero() {
			missed[dgst] = now
		}
	}
	g.markMissed(ctx, s, existing, missed, change)
	return change
}

// Keeps reports whether a referrer that an earlier pull or an import tied to the subject still
// counts: where the repository told in full what it lists, nothing else does. It is for a
// gather that is idle.
func (g *Gather) Keeps(ctx context.Context, subject, referrer digest.Digest) bool {
	g.mu.Lock()
	s := g.bySubj[subject]
	g.mu.Unlock()
	if s == nil { // not asked about
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked.found[referrer] {
		return true
	}
	info, err := g.config.Store.Info(ctx, referrer)
	return err == nil && !s.asked.outdates(info)
}

// MarkMissing marks what the registry no longer lists, and ties nothing: for a pull that was
// refused. What is known against an image may be kept, and nothing for it. out is what Wait
// returned. The error is of the store.
func (g *Gather) MarkMissing(ctx context.Context, out *outcome.Outcome) error {
	now := time.Now()
	g.config.NoPrune = true
	var all []stored.Tying
	for _, s := range out.Subjects {
		asked := &g.bySubj[s.Digest].asked
		all = append(all, stored.Tying{Subject: s.Digest, More: func(ctx context.Context, existing map[string]string) map[string]string {
			set := g.missing(ctx, s, asked, existing, now)
			g.changes = append(g.changes, changesOf(s.Digest, existing, set, g.source.locator)...)
			return set
		}})
	}
	return g.config.Labeler.TieAll(ctx, all)
}

// missing returns the marks of what the registry no longer lists, and of nothing else.
func (g *Gather) missing(ctx context.Context, s outcome.Subject, asked *inquiry, existing map[string]string, now time.Time) map[string]string {
	change := map[string]string{}
	for key, value := range g.refresh(ctx, s, asked, existing, now) {
		if len(value) > len(existing[key]) && labels.IsUnlisted(key) {
			change[key] = value
		}
	}
	return change
}

// markMissed marks what is no longer listed, or unties it where the rule prunes. A
// subject keeps no more of it than it may have referrers, those that were missed
// last: who signs anew every day must not fill the node's disk.
func (g *Gather) markMissed(ctx context.Context, s outcome.Subject, existing map[string]string, missed map[digest.Digest]time.Time, change map[string]string) {
	most := g.config.Limits.MaxReferrers
	if g.config.Selection.Prune() {
		most = 0
	}
	if g.config.NoPrune {
		most = len(missed)
	}
	latest := slices.SortedFunc(maps.Keys(missed), func(a, b digest.Digest) int {
		return cmp.Or(missed[b].Compare(missed[a]), cmp.Compare(a, b))
	})
	for i, dgst := range latest {
		mark := labels.Unlisted(dgst)
		log := log.G(ctx).WithField("image", g.config.Name).WithField("subject", s.Digest).WithField("digest", dgst)
		switch {
		case i >= most:
			log.Info("referrers: no longer listed, removed")
			change[mark] = ""
			for _, key := range labels.Untie(existing, dgst) {
				change[key] = ""
			}
		case labels.UnlistedSince(existing, dgst, g.source.locator).IsZero():
			log.Info("referrers: no longer listed, kept")
			change[mark] = labels.AddUnlisted(existing[mark], missed[dgst], g.source.locator)
		}
	}
}
