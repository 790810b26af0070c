// Package stored ties referrers to their subjects in a content store, and reads
// them back: what a pull or an import brought, without any registry. It works with
// a daemon's store over gRPC as with one in-process.
package stored

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// Store is the part of a content.Store that is read.
type Store interface {
	content.InfoProvider
	content.Provider
}

const (
	// maxDepth is more than any policy takes.
	maxDepth = 16
	// maxEntries bounds a tree whose labels were not written by a pull.
	maxEntries = 10_000
)

// Image is an image with the referrers that are stored with it. Its JSON is what
// `ctr referrers ls --format json` prints.
type Image struct {
	Name   string        `json:"image"`
	Digest digest.Digest `json:"digest"`
	// Status is the one that says least among those of the index, or single
	// manifest, and of the platforms that were asked about; other platforms do
	// not count. Checked is when the first of them was learnt. Where the index
	// was never asked about Status is unknown and Checked is zero.
	Status  labels.Status `json:"status"`
	Checked time.Time     `json:"checked,omitzero"`
	// Unselected says that the registry has referrers, and that the last pull or fetch
	// selected none of them. Where the index was never asked about, the caller may set it:
	// only the daemon knows whether a rule selects any.
	Unselected bool `json:"unselected,omitempty"`
	// Repositories are those that have the image, where that is more than one. The caller
	// sets it, as it does TotalSize, the bytes of all Referrers.
	Repositories []string `json:"repositories,omitempty"`
	TotalSize    int64    `json:"totalSize,omitempty"`
	// Referrers are those of the index, of each index within it and of each
	// platform manifest that is stored; their field Subject tells which.
	Referrers []Referrer `json:"referrers"`

	// Subjects are the image's index and manifests that are stored.
	Subjects []Subject `json:"subjects"`
}

// Subject is a manifest or index of the image that is stored.
type Subject struct {
	ocispec.Descriptor
	Status  labels.Status `json:"status"`
	Checked time.Time     `json:"checked,omitzero"`
	// Repository is the one that gave the status; empty where a version before this label
	// asked, or none did.
	Repository string `json:"repository,omitempty"`
	// Unselected says that there are referrers, none of which was selected.
	Unselected bool `json:"unselected,omitempty"`
}

// Name tells the subject from the image's others.
func (s Subject) Name() string {
	switch {
	case artifact.IsIndex(s.MediaType):
		return "index"
	case s.Platform != nil:
		return platforms.Format(*s.Platform)
	default:
		return "manifest"
	}
}

// Referrer is a referrer that is stored.
type Referrer struct {
	Digest       digest.Digest `json:"digest"`
	MediaType    string        `json:"mediaType"`
	ArtifactType string        `json:"artifactType"`
	Size         int64         `json:"size"` // of the manifest, in bytes
	// ContentSize is that of all it names, config and layers, in bytes; 0 until
	// [AddSizes] has added it up.
	ContentSize int64             `json:"contentSize"`
	Annotations map[string]string `json:"annotations"`
	Subject     digest.Digest     `json:"subject"`
	// Unlisted is since when the registry lists it no longer; zero where the
	// last pull found it.
	Unlisted  time.Time  `json:"unlisted,omitzero"`
	Referrers []Referrer `json:"referrers"`
}

// Artifact returns what policy decides by. Whether the referrer has any content is not read.
func (r Referrer) Artifact() artifact.Referrer {
	return artifact.Referrer{ArtifactType: r.ArtifactType, Annotations: r.Annotations}
}

// Descriptor returns the descriptor of the referrer's manifest. Of the annotations it has
// those that tell what the referrer is: others would name images, tie content or root it
// wherever the descriptor goes, and are what a stranger wrote.
func (r Referrer) Descriptor() ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: r.MediaType, ArtifactType: r.ArtifactType, Digest: r.Digest, Size: r.Size}
	for key, value := range r.Annotations {
		if artifact.IsDescriptive(key) {
			if desc.Annotations == nil {
				desc.Annotations = map[string]string{}
			}
			desc.Annotations[key] = value
		}
	}
	return desc
}

// Read returns the image with all its stored referrers.
func Read(ctx context.Context, store Store, image images.Image) (*Image, error) {
	out, err := read(ctx, store, image)
	if err = ended(ctx, err); err != nil {
		return nil, fmt.Errorf("image %s: %w", image.Name, err)
	}
	return out, nil
}

func read(ctx context.Context, store Store, image images.Image) (*Image, error) {
	out := &Image{Name: image.Name, Digest: image.Target.Digest, Status: labels.Unknown, Referrers: []Referrer{}, Subjects: []Subject{}}
	subjects, err := subjectsOf(ctx, store, image.Target)
	if err != nil {
		return nil, err
	}
	t, anyTied := newTree(store), false
	if spec, err := reference.Parse(image.Name); err == nil {
		t.repository = spec.Locator
	}
	for i, desc := range subjects {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		info, err := store.Info(ctx, desc.Digest)
		if errdefs.IsNotFound(err) && i > 0 {
			continue // a platform that was not pulled
		}
		if err != nil {
			return nil, err
		}
		s := Subject{Descriptor: desc}
		s.Status, s.Checked = labels.ReadCheckmark(info.Labels)
		if !s.Checked.IsZero() {
			s.Repository = info.Labels[labels.AskedKey]
		}
		tied := len(labels.Referrers(info.Labels)) > 0
		s.Unselected = s.Status == labels.Present && !tied
		anyTied = anyTied || tied
		out.count(s)
		out.Subjects = append(out.Subjects, s)
		referrers, err := t.of(ctx, desc.Digest, info.Labels, maxDepth)
		if err != nil {
			return nil, err
		}
		out.Referrers = append(out.Referrers, referrers...)
	}
	out.Unselected = out.Status == labels.Present && !anyTied
	return out, nil
}

// Referrers returns the referrers that are stored with one subject, each complete,
// sorted by digest; their own referrers need a call each. Their artifact types are those of
// their manifests, and their annotations those that tell what they are. A subject that is
// not stored is an errdefs.ErrNotFound; one without referrers has none.
func Referrers(ctx context.Context, store Store, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	info, err := store.Info(ctx, subject.Digest)
	if err != nil {
		return nil, ended(ctx, err)
	}
	referrers, err := newTree(store).of(ctx, subject.Digest, info.Labels, 1)
	if err != nil {
		return nil, err
	}
	var out []ocispec.Descriptor
	r := NewReader(store)
	for _, referrer := range referrers {
		if missing := r.Complete(ctx, referrer.Descriptor()); missing == nil {
			out = append(out, referrer.Descriptor())
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return out, nil
}

// Provider returns Referrers as a content.ReferrersProvider, as containerd's
// archive.WithReferrersProvider and client.WithImportReferrers take one.
func Provider(store Store) content.ReferrersProvider { return provider{store} }

type provider struct{ store Store }

func (p provider) Referrers(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	return Referrers(ctx, p.store, desc)
}

// count lets the next subject bear on what is said of the whole image; the first is
// its index. A platform's answer says nothing of an index that was never asked about,
// as where two images share the platform's manifest.
func (i *Image) count(s Subject) {
	switch {
	case len(i.Subjects) == 0:
		i.Status, i.Checked = s.Status, s.Checked
	case i.Checked.IsZero() || s.Checked.IsZero():
	default:
		i.Status = i.Status.Worse(s.Status)
		if s.Checked.Before(i.Checked) {
			i.Checked = s.Checked
		}
	}
}
