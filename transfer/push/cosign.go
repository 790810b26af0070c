package push

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// cosignTag returns the tag under which cosign v1 and v2 look for the referrer,
// whose manifest names no subject.
func cosignTag(subject digest.Digest, r stored.Referrer) (string, error) {
	set := policy.SetOf(policy.Referrer{ArtifactType: r.ArtifactType, Annotations: r.Annotations})
	for _, kind := range discovery.CosignKinds {
		if set != "" && policy.SetOf(policy.Referrer{ArtifactType: kind.ArtifactType}) == set && subject.Algorithm() == digest.SHA256 {
			return strings.Replace(subject.String(), ":", "-", 1) + kind.Suffix, nil
		}
	}
	return "", fmt.Errorf("its manifest names no subject, so that no one would find it in the registry: %w", errdefs.ErrFailedPrecondition)
}

// putTagged puts what lies under one of cosign's tags. A tag that holds something
// else is left as it is: cosign adds signatures to one manifest, and what was
// overwritten would be lost. One that holds all of ours and more will do.
func (p *pusher) putTagged(ctx context.Context, r *referrer, data []byte, m *artifact.Manifest, tag string) error {
	a, err := p.Repository.Get(ctx, p.host, p.Repository.URL(p.host, "manifests", tag), remote.AcceptAny)
	switch {
	case err != nil:
		return fmt.Errorf("tag %s: %w", tag, err)
	case a.Code == http.StatusOK && remote.Verify(a.Body, r.Descriptor()) == nil, a.Code == http.StatusOK && holdsAll(a, data):
		r.found = true
		return nil
	case a.Code == http.StatusOK:
		return fmt.Errorf("tag %s holds something else, which is not overwritten; delete the tag in the registry, or copy its signatures first: %w", tag, errdefs.ErrAlreadyExists)
	case a.Code != http.StatusNotFound:
		return fmt.Errorf("tag %s: what it holds is not known, the registry answered %d %s: %w", tag, a.Code, http.StatusText(a.Code), errdefs.ErrUnavailable)
	}
	if err := p.children(ctx, plain(r.Descriptor()), m, 0); err != nil {
		return err
	}
	_, err = p.Repository.PutManifest(ctx, p.host, tag, r.MediaType, data)
	return err
}

// holdsAll says whether an answer is a manifest with all layers of ours, to the
// letter: a signature of cosign's is an annotation of its layer.
func holdsAll(a *remote.Answer, ours []byte) bool {
	if _, err := artifact.Parse(a.Body, a.MediaType(), artifact.MaxDescriptors); err != nil {
		return false
	}
	theirs := map[string]bool{}
	for _, l := range layers(a.Body) {
		theirs[l] = true
	}
	want := layers(ours)
	for _, l := range want {
		if !theirs[l] {
			return false
		}
	}
	return len(want) > 0
}

// layers returns the layers of a manifest that has been parsed, as JSON without
// white space.
func layers(data []byte) []string {
	var m struct {
		Layers []json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil
	}
	out := make([]string, len(m.Layers))
	for i, l := range m.Layers {
		var b bytes.Buffer
		if err := json.Compact(&b, l); err != nil {
			return nil
		}
		out[i] = b.String()
	}
	return out
}
