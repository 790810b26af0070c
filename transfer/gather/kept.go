package gather

import (
	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// What an earlier pull tied needs nothing written at a pull again. The collector follows
// the labels of what a lease holds: with the subject under this pull's lease, its tied
// referrers live as long as the pull, and so does all that their labels name. So one lease
// of the subject stands for a lease of every manifest and blob, each of which would be a
// transaction of the metadata database.

// kept reports whether the manifest of the attempt, and the labels that it would get, are
// stored and tied to the subject. Its blobs are for hasBlob to look for.
func (g *Gather) kept(a *attempt, childLabels map[string]string) bool {
	if g.config.Protect == nil || g.config.Dry {
		return false
	}
	if a.stored == nil { // its bytes came from elsewhere
		info, err := g.config.Store.Info(g.ctx, a.Digest)
		if err != nil {
			return false
		}
		a.stored = &info
	}
	return a.stored.Size == a.Size && g.labeled(a.stored, childLabels) && g.ties(a.subject, a.Digest)
}

// labeled reports whether content has the labels, and that of its source.
func (g *Gather) labeled(info *content.Info, want map[string]string) bool {
	for key, value := range want {
		if info.Labels[key] != value {
			return false
		}
	}
	source := map[string]string{}
	g.source.add(source, info.Labels)
	for key, value := range source {
		if info.Labels[key] != value {
			return false
		}
	}
	return true
}

// ties reports whether the referrer is tied to the subject, which is under this pull's
// lease. What is tied is read once that is so: until then a collector may take it.
func (g *Gather) ties(s *subject, referrer digest.Digest) bool {
	s.protect.Do(func() {
		if !s.kept && g.config.Protect(g.ctx, s.desc.Digest) != nil {
			return // each manifest and blob gets a lease of its own
		}
		info, err := g.config.Store.Info(g.ctx, s.desc.Digest)
		if err != nil {
			return
		}
		s.tied = map[digest.Digest]bool{}
		for _, dgst := range labels.Referrers(info.Labels) {
			s.tied[dgst] = true
		}
	})
	return s.tied[referrer]
}

// hasBlob reports whether a blob of a referrer that is kept is stored as it would be now.
func (g *Gather) hasBlob(desc ocispec.Descriptor) bool {
	info, err := g.config.Store.Info(g.ctx, desc.Digest)
	return err == nil && info.Size == desc.Size && g.labeled(&info, nil)
}
