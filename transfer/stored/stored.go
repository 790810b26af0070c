// Package stored ties referrers to their subjects in a content store, and reads
// them back: what a pull or an import brought, without any registry. It works with
// a daemon's store over gRPC as with one in-process.
package stored

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/remote"
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
	// maxNesting is how deep the indexes within a referrer may lie, as a pull
	// takes them.
	maxNesting = 2
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
	Status  discovery.Status `json:"status"`
	Checked time.Time        `json:"checked,omitzero"`
	// Referrers are those of the index, of each index within it and of each
	// platform manifest that is stored; their field Subject tells which.
	Referrers []Referrer `json:"referrers"`

	// Subjects are the image's index and manifests that are stored.
	Subjects []Subject `json:"subjects"`
}

// Subject is a manifest or index of the image that is stored.
type Subject struct {
	ocispec.Descriptor
	Status  discovery.Status `json:"status"`
	Checked time.Time        `json:"checked,omitzero"`
}

// Name tells the subject from the image's others.
func (s Subject) Name() string {
	switch {
	case images.IsIndexType(s.MediaType):
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
	// ContentSize is that of all it names, config and layers, in bytes.
	ContentSize int64             `json:"contentSize"`
	Annotations map[string]string `json:"annotations"`
	Subject     digest.Digest     `json:"subject"`
	// Unlisted is since when the registry lists it no longer; zero where the
	// last pull found it.
	Unlisted  time.Time  `json:"unlisted,omitzero"`
	Referrers []Referrer `json:"referrers"`
}

// Descriptor returns the descriptor of the referrer's manifest.
func (r Referrer) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: r.MediaType, ArtifactType: r.ArtifactType, Digest: r.Digest, Size: r.Size, Annotations: r.Annotations}
}

// Read returns the image with all its stored referrers.
func Read(ctx context.Context, store Store, image images.Image) (*Image, error) {
	out := &Image{Name: image.Name, Digest: image.Target.Digest, Status: discovery.Unknown, Referrers: []Referrer{}, Subjects: []Subject{}}
	subjects, err := subjectsOf(ctx, store, image.Target)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image.Name, err)
	}
	t := &tree{store: store, above: map[digest.Digest]bool{}}
	for i, desc := range subjects {
		info, err := store.Info(ctx, desc.Digest)
		if errdefs.IsNotFound(err) && i > 0 {
			continue // a platform that was not pulled
		}
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", image.Name, err)
		}
		s := Subject{Descriptor: desc}
		s.Status, s.Checked = checkmark(info.Labels)
		out.count(s)
		out.Subjects = append(out.Subjects, s)
		referrers, err := t.of(ctx, desc.Digest, info.Labels, maxDepth)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", image.Name, err)
		}
		out.Referrers = append(out.Referrers, referrers...)
	}
	return out, nil
}

// Referrers returns the referrers that are stored with one subject, each whole,
// sorted by digest; theirs are for another call. Their artifact types and
// annotations are those of their manifests. A subject that is not stored is an
// errdefs.ErrNotFound; one without referrers has none.
func Referrers(ctx context.Context, store Store, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	info, err := store.Info(ctx, subject.Digest)
	if err != nil {
		return nil, err
	}
	t := &tree{store: store, above: map[digest.Digest]bool{}}
	referrers, err := t.of(ctx, subject.Digest, info.Labels, 1)
	var out []ocispec.Descriptor
	for _, r := range referrers {
		if Whole(ctx, store, r.Descriptor()) {
			out = append(out, r.Descriptor())
		}
	}
	return out, err
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

func checkmark(l map[string]string) (discovery.Status, time.Time) {
	checked, err := time.Parse(time.RFC3339, l[labels.Checked])
	if err != nil {
		return discovery.Unknown, time.Time{}
	}
	switch status := discovery.Status(l[labels.Status]); status {
	case discovery.Present, discovery.Absent, discovery.Truncated:
		return status, checked
	default: // of another version as well
		return discovery.Unknown, checked
	}
}

// tree reads what labels tie together. Labels can lead in circles, which digests
// cannot: what stands above a referrer is not read beneath it again.
type tree struct {
	store   Store
	above   map[digest.Digest]bool
	entries int
}

// of returns what the labels tie to the subject, and to that. What is tied but
// gone is left out: the store may have been pruned by hand. What is damaged is
// shown without a type.
func (t *tree) of(ctx context.Context, subject digest.Digest, subjectLabels map[string]string, depth int) ([]Referrer, error) {
	out := []Referrer{}
	if depth == 0 {
		return out, nil
	}
	t.above[subject] = true
	defer delete(t.above, subject)
	for _, dgst := range labels.Referrers(subjectLabels) {
		if t.above[dgst] {
			continue
		}
		if t.entries++; t.entries > maxEntries {
			return nil, fmt.Errorf("more than %d referrers: %w", maxEntries, errdefs.ErrResourceExhausted)
		}
		info, err := t.store.Info(ctx, dgst)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r := referrer(ctx, t.store, info)
		r.Subject = subject
		r.Unlisted = labels.UnlistedSince(subjectLabels, dgst)
		if r.Referrers, err = t.of(ctx, dgst, info.Labels, depth-1); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func referrer(ctx context.Context, store Store, info content.Info) Referrer {
	r := Referrer{Digest: info.Digest, Size: info.Size, Annotations: map[string]string{}, ArtifactType: info.Labels[labels.ArtifactType]}
	m, err := Manifest(ctx, store, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
	if err != nil {
		return r
	}
	r.MediaType = m.MediaType
	r.ContentSize = contentSize(ctx, store, m, maxNesting)
	if r.ArtifactType == "" {
		r.ArtifactType = m.ArtifactType
	}
	if m.Annotations != nil {
		r.Annotations = m.Annotations
	}
	return r
}

// contentSize adds up what the manifest names; of an index, what its manifests name
// as well.
func contentSize(ctx context.Context, store Store, m *artifact.Manifest, nesting int) int64 {
	var total int64
	for _, list := range [][]ocispec.Descriptor{m.Blobs, m.Manifests} {
		for _, desc := range list {
			if desc.Size > 0 && desc.Size < math.MaxInt64-total { // untrusted
				total += desc.Size
			}
		}
	}
	for _, desc := range m.Manifests {
		if child, err := Manifest(ctx, store, desc); err == nil && nesting > 0 {
			if size := contentSize(ctx, store, child, nesting-1); size < math.MaxInt64-total {
				total += size
			}
		}
	}
	return total
}

// Whole reports whether a referrer is stored with all that it names.
func Whole(ctx context.Context, store Store, desc ocispec.Descriptor) bool {
	m, err := Manifest(ctx, store, desc)
	if err != nil {
		return false
	}
	for _, b := range m.Blobs {
		if _, err := store.Info(ctx, b.Digest); err != nil {
			return false
		}
	}
	for _, child := range m.Manifests {
		if !Whole(ctx, store, child) {
			return false
		}
	}
	return true
}

// Manifest reads and parses a manifest or index; its media type need not be known.
func Manifest(ctx context.Context, store Store, desc ocispec.Descriptor) (*artifact.Manifest, error) {
	data, err := ReadManifest(ctx, store, desc)
	if err != nil {
		return nil, err
	}
	var head struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%s is no manifest: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	if head.MediaType == "" { // optional until OCI image-spec 1.1
		head.MediaType = ocispec.MediaTypeImageManifest
		if head.Manifests != nil {
			head.MediaType = ocispec.MediaTypeImageIndex
		}
	}
	return artifact.Parse(data, head.MediaType, artifact.MaxDescriptors)
}

// ReadManifest reads a manifest or index from the store. Content of another size
// than the descriptor says is not read: an untrusted index may have called a layer that is
// stored a manifest. The error is then errdefs.ErrInvalidArgument.
func ReadManifest(ctx context.Context, store content.Provider, desc ocispec.Descriptor) ([]byte, error) {
	if err := remote.Check(desc, remote.MaxManifestSize); err != nil {
		return nil, err
	}
	ra, err := store.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	if ra.Size() != desc.Size {
		return nil, fmt.Errorf("%s is stored with %d bytes, %d are said of it: %w", desc.Digest, ra.Size(), desc.Size, errdefs.ErrInvalidArgument)
	}
	return io.ReadAll(content.NewReader(ra))
}
