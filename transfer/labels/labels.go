// Package labels holds the keys of the labels that tie referrers to their
// subjects in the content store, and what their values say. docs/architecture.md
// explains the owner and the end of each.
package labels

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	// StatusKey stands on a subject that was asked about: what is known of its
	// referrers, present, absent, unknown or truncated.
	StatusKey = "transfer-referrers/status"
	// CheckedKey stands beside it: when that was learnt (RFC 3339, UTC).
	CheckedKey = "transfer-referrers/checked"
	// AskedKey stands beside it: the repository, with registry and port, that was asked.
	AskedKey = "transfer-referrers/asked"
	// ArtifactTypeKey stands on a referrer that no listing vouches for: from one
	// of cosign's tags, the image's index, or an archive that alone names its
	// subject. It is the type that the referrer was taken for, which its manifest
	// need not carry.
	ArtifactTypeKey = "transfer-referrers/artifact-type"

	// SourceKey stands on what a pull stored of a referrer: the repositories,
	// each with its registry and port, that it came from, separated by commas.
	// containerd's own label of the kind knows no port.
	SourceKey = "transfer-referrers/source"

	// unlisted, followed by the digest of a referrer that is tied to the
	// subject: since when the registry that it came from lists it no longer
	// (RFC 3339, UTC).
	unlisted = "transfer-referrers/unlisted."

	// referrer, followed by hex digits of a digest, refers from a subject to
	// a referrer. It is the key that containerd's client writes
	// (images.SetReferrers with images.ChildGCLabels) and Docker Engine
	// reads; both write "sha256" whatever the digest's algorithm.
	referrer = "containerd.io/gc.ref.content.referrer.sha256."
	// short is how many hex digits that client writes.
	short = 12
	// child refers from a referrer to a blob or manifest of its own. The
	// obvious keys, "containerd.io/gc.ref.content.<n>" and ".l.<n>", are
	// what `ctr content prune references` takes for layers and removes.
	child = "containerd.io/gc.ref.content.artifact."
)

// Referrers returns the digests that the labels of a subject tie to it, sorted.
// Labels that hold no digest are passed over.
func Referrers(labels map[string]string) []digest.Digest {
	found := map[digest.Digest]struct{}{}
	for key, value := range labels {
		if !strings.HasPrefix(key, referrer) {
			continue
		}
		if dgst, err := digest.Parse(value); err == nil {
			found[dgst] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// TieLabels returns the labels that tie referrers to a subject which carries the given
// labels already. A key is containerd's own, unless that already ties another
// referrer whose digest begins with the same digits: then it is the whole digest.
func TieLabels(existing map[string]string, referrers ...digest.Digest) map[string]string {
	out := map[string]string{}
	holder := func(key string) string {
		if v := out[key]; v != "" {
			return v
		}
		return existing[key]
	}
	for _, dgst := range referrers {
		hex := dgst.Encoded()
		key := referrer + hex[:min(short, len(hex))]
		if v := holder(key); v != "" && v != dgst.String() {
			key = referrer + hex
		}
		out[key] = dgst.String()
	}
	return out
}

// Untie returns the keys that tie the referrer to a subject with those labels.
func Untie(existing map[string]string, dgst digest.Digest) []string {
	var keys []string
	for key, value := range existing {
		if strings.HasPrefix(key, referrer) && value == dgst.String() {
			keys = append(keys, key)
		}
	}
	return keys
}

// Children returns the labels by which a referrer's manifest keeps its own
// content.
func Children(children ...digest.Digest) map[string]string {
	out := make(map[string]string, len(children))
	for i, dgst := range children {
		out[fmt.Sprintf("%s%d", child, i)] = dgst.String()
	}
	return out
}
