package push

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// cosignTag returns the tag under which cosign v1 and v2 look for the referrer,
// whose manifest names no subject.
func cosignTag(subject digest.Digest, r stored.Referrer) (string, error) {
	set := artifact.SetOf(artifact.Referrer{ArtifactType: r.ArtifactType, Annotations: r.Annotations})
	for _, kind := range registry.CosignKinds {
		if set != "" && artifact.SetOfType(kind.ArtifactType) == set && subject.Algorithm() == digest.SHA256 {
			return kind.Tag(subject), nil
		}
	}
	return "", fmt.Errorf("its manifest names no subject, so that no one would find it in the registry: %w", errdefs.ErrFailedPrecondition)
}

// putTagged puts what lies under one of cosign's tags. A tag that holds something
// else is left as it is: cosign adds signatures to one manifest, and what was
// overwritten would be lost. One that holds all of ours and more will do, and one of
// which ours holds all gives way: of an image that was signed again between two pulls
// both manifests are stored. They take turns, as other pushes of this daemon do.
func (p *pusher) putTagged(ctx context.Context, r *referrer, data []byte, m *artifact.Manifest, tag string) error {
	address := p.config.Repository.URL(p.host, "manifests", tag)
	unlock, err := p.config.Locks.lock(ctx, address.String())
	if err != nil {
		return err
	}
	defer unlock()
	a, err := p.config.Repository.Get(ctx, p.host, address, registry.AcceptAny)
	switch {
	case err != nil:
		return fmt.Errorf("tag %s: %w", tag, err)
	case a.Code == http.StatusOK && artifact.Verify(a.Body, r.Descriptor()) == nil, a.Code == http.StatusOK && isManifest(a) && holdsAll(a.Body, data):
		r.existed = true
		return nil
	case a.Code == http.StatusOK && isManifest(a) && holdsAll(data, a.Body):
	case a.Code == http.StatusOK:
		return fmt.Errorf("tag %s holds something else, which is not overwritten; delete the tag in the registry, or copy its signatures first: %w", tag, errdefs.ErrAlreadyExists)
	case a.Code != http.StatusNotFound:
		return fmt.Errorf("tag %s: what it holds is not known, the registry answered %d %s: %w", tag, a.Code, http.StatusText(a.Code), errdefs.ErrUnavailable)
	}
	if err := p.content(ctx, r.Descriptor(), m); err != nil {
		return err
	}
	_, err = p.config.Repository.PutManifest(ctx, p.host, tag, r.MediaType, data)
	return err
}

func isManifest(a *registry.Response) bool {
	_, err := artifact.Parse(a.Body, a.MediaType())
	return err == nil
}

// holdsAll reports whether one manifest has all layers of the other, with all that is
// said of them: a signature of cosign's is an annotation of its layer.
func holdsAll(all, some []byte) bool {
	there := map[string]bool{}
	for _, l := range layers(all) {
		there[l] = true
	}
	want := layers(some)
	for _, l := range want {
		if !there[l] {
			return false
		}
	}
	return len(want) > 0
}

// layers returns the layers of a manifest that has been parsed, as JSON whose keys
// are sorted.
func layers(data []byte) []string {
	var m struct {
		Layers []any `json:"layers"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&m); err != nil {
		return nil
	}
	out := make([]string, len(m.Layers))
	for i, l := range m.Layers {
		b, err := json.Marshal(l)
		if err != nil {
			return nil
		}
		out[i] = string(b)
	}
	return out
}
