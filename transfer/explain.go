package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/gather"
	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// explain does what a pull does, but for the image, and stores nothing.
func (t *Transferrer) explain(ctx context.Context, src transfer.ImageFetcher, dst *explain.Destination) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, release, err := t.withLease(ctx)
	if err != nil {
		return err
	}
	defer release()
	p, err := t.newPull(ctx, src, nil)
	if err != nil {
		return err
	}
	defer p.close()
	p.dry = true

	name, root, err := p.resolve(ctx)
	if err != nil {
		return fmt.Errorf("failed to resolve image: %w", err)
	}
	if err := p.start(ctx, name, root); err != nil {
		return err
	}
	e := &explain.Explanation{Image: name, Digest: root.Digest, Rule: p.selection.Origin(), Selection: p.selection.String(), Subjects: []explain.Subject{}}
	if p.gather == nil { // nothing is taken, so that nothing is asked
		return dst.Send(e)
	}
	platformOf, err := p.tellManifests(ctx, root, dst)
	if err != nil {
		return err
	}
	outcome := p.gather.Wait(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := outcome.Enforce(name, p.selection); err != nil {
		e.Refused = err.Error()
	}
	for _, s := range outcome.Subjects {
		e.Subjects = append(e.Subjects, explained(s, platformOf[s.Digest.String()]))
	}
	return dst.Send(e)
}

// resolve returns what the reference names: from the store, where it has a digest
// that is there, so that a registry that fails can be explained as well.
func (p *pull) resolve(ctx context.Context) (string, ocispec.Descriptor, error) {
	s, ok := p.src.(*source.Source)
	if !ok {
		return p.src.Resolve(ctx)
	}
	spec, err := reference.Parse(s.Image())
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	info, err := p.t.Store.Info(ctx, spec.Digest())
	if spec.Digest() == "" || err != nil {
		return s.Resolve(ctx)
	}
	desc := ocispec.Descriptor{Digest: info.Digest, Size: info.Size}
	m, err := stored.Manifest(ctx, p.t.Store, desc)
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	desc.MediaType = m.MediaType
	return s.Image(), desc, nil
}

// tellManifests tells the gather of the index's manifests as a pull's dispatch
// would, and returns their platforms by digest.
func (p *pull) tellManifests(ctx context.Context, root ocispec.Descriptor, dst *explain.Destination) (map[string]string, error) {
	platformOf := map[string]string{}
	if !images.IsIndexType(root.MediaType) {
		return platformOf, nil
	}
	data, err := p.read(ctx, root)
	if err != nil {
		return nil, err
	}
	root.Data = data // which containerd reads in place of a store's
	wanted := dst.Platforms()
	if len(wanted) == 0 {
		wanted = []ocispec.Platform{platforms.DefaultSpec()}
	}
	store := &pullStore{destination: destination{platformsOnly{wanted: wanted}}, p: p}
	children, err := store.ImageFilter(images.ChildrenHandler(nil), nil)(ctx, root)
	for _, c := range children {
		if c.Platform != nil {
			platformOf[c.Digest.String()] = platforms.FormatAll(*c.Platform)
		}
	}
	return platformOf, err
}

// read returns the image's index: from the store, or from the registry.
func (p *pull) read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := remote.Check(desc, remote.MaxManifestSize); err != nil {
		return nil, err
	}
	if _, err := p.t.Store.Info(ctx, desc.Digest); err == nil {
		return stored.ReadManifest(ctx, p.t.Store, desc)
	}
	f, err := p.src.Fetcher(ctx, p.name)
	if err != nil {
		return nil, err
	}
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(rc, desc.Size+1))
	if err := errors.Join(err, rc.Close()); err != nil {
		return nil, err
	}
	return data, remote.Verify(data, desc)
}

func explained(s gather.Subject, platform string) explain.Subject {
	out := explain.Subject{
		Digest: s.Digest, Platform: platform, Image: s.Image, Status: s.Status,
		Answers: []explain.Answer{}, Taken: []explain.Referrer{}, Left: []explain.Referrer{},
	}
	for _, a := range s.Answers {
		out.Answers = append(out.Answers, explain.Answer{Host: a.Host, Request: a.Request, Code: a.Code, Status: a.Status, Detail: a.Detail})
	}
	for _, t := range s.Taken {
		out.Taken = append(out.Taken, explain.Referrer{Digest: t.Digest, ArtifactType: t.ArtifactType, Reason: t.Reason})
	}
	for _, l := range s.Left {
		out.Left = append(out.Left, explain.Referrer{Digest: l.Digest, ArtifactType: l.ArtifactType, Reason: l.Reason})
	}
	return out
}

// platformsOnly is a destination that is only asked for its platforms.
type platformsOnly struct {
	transfer.ImageStorer
	wanted []ocispec.Platform
}

func (d platformsOnly) Platforms() []ocispec.Platform { return d.wanted }
