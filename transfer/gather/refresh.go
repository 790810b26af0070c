package gather

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	clabels "github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// known is what a pull learnt of a subject that bears on the referrers which an
// earlier pull tied to it. Nothing is gone because it was not heard of.
type known struct {
	whole bool                   // the listing was read to its end
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
	k.whole = l.Status == discovery.Present || l.Status == discovery.Absent
	for _, r := range l.Referrers {
		k.add(r.Digest)
	}
	for _, r := range l.Rejected {
		k.add(r.Digest)
	}
}

func (k *known) tag(artifactType string, found *discovery.CosignArtifact, answers []discovery.Answer) {
	if found != nil {
		k.add(found.Digest)
	}
	if found == nil && slices.ContainsFunc(answers, func(a discovery.Answer) bool { return a.Status != discovery.Absent }) {
		return
	}
	if k.tags == nil {
		k.tags = map[string]bool{}
	}
	k.tags[artifactType] = true
}

// answers says whether the pull asked where the referrer would be found, and was
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
// no longer lists are marked, or let go where the rule says so. Only what came from
// this repository alone is judged: an image of the same content elsewhere has
// referrers of its own.
func (g *Gather) refresh(ctx context.Context, s Subject, existing map[string]string, now time.Time) map[string]string {
	change := map[string]string{}
	for _, t := range s.Taken {
		s.known.add(t.Digest)
	}
	for _, dgst := range labels.Referrers(existing) {
		mark := labels.Unlisted(dgst)
		if s.known.found[dgst] {
			change[mark] = ""
			continue
		}
		info, err := g.Store.Info(ctx, dgst)
		if err != nil || !g.source.only(info.Labels) || !s.known.answers(info.Labels) {
			continue
		}
		log := log.G(ctx).WithField("image", g.Name).WithField("subject", s.Digest).WithField("digest", dgst)
		switch {
		case g.Selection.Prune() && !g.Keep:
			log.Info("referrers: no longer listed, let go")
			change[mark] = ""
			for _, key := range labels.Untie(existing, dgst) {
				change[key] = ""
			}
		case existing[mark] == "":
			log.Info("referrers: no longer listed, kept")
			change[mark] = now.UTC().Format(time.RFC3339)
		}
	}
	return change
}

// only says whether content came from the source's repository and no other.
func (s sourceLabel) only(existing map[string]string) bool {
	sources := maps.Clone(existing)
	maps.DeleteFunc(sources, func(key, _ string) bool {
		return !strings.HasPrefix(key, clabels.LabelDistributionSource+".")
	})
	return len(sources) == 1 && s.repository != "" && sources[s.key] == s.repository
}
