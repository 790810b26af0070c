package push

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

const (
	// maxUpdates is how often one update of a fallback tag is written at most,
	// against others who write it at the same time.
	maxUpdates = 50
	// minSettle and maxSettle bound how long an update waits for others whose
	// own began before it; in between it is three times what the update took.
	minSettle = 200 * time.Millisecond
	maxSettle = 5 * time.Second
)

// updateTag adds entries to the subject's fallback tag. The pushes of one daemon take
// turns.
func (p *pusher) updateTag(ctx context.Context, subject digest.Digest, entries []ocispec.Descriptor) error {
	t := &fallbackTag{repository: p.config.Repository, host: p.host, name: registry.FallbackTag(subject)}
	unlock, err := p.config.Locks.lock(ctx, t.url().String())
	if err != nil {
		return err
	}
	defer unlock()
	if err := t.add(ctx, entries); err != nil {
		return fmt.Errorf("the referrers of subject %s are in the registry, which does not list them; its fallback tag %s of %s: %w", subject, t.name, p.config.Repository.Name(), err)
	}
	return nil
}

// fallbackTag is the tag under which registries without the referrers endpoint keep
// the listing of a subject (OCI distribution-spec, "Referrers Tag Schema").
//
// HTTP gives no means that registries honour to write it only where no one else has.
// So what is there is read, joined with the entries, written, and read again until it
// holds them and every entry that was ever seen there: who writes over another's
// entries sees them missing and writes them again. The last look comes when whoever
// had read the tag before the last writing should have written it too.
type fallbackTag struct {
	repository *registry.Repository
	host       *registry.Host
	name       string
}

func (t *fallbackTag) url() *url.URL { return t.repository.URL(t.host, "manifests", t.name) }

func (t *fallbackTag) add(ctx context.Context, entries []ocispec.Descriptor) error {
	wanted := &entryList{}
	for _, e := range entries {
		if err := wanted.add(e); err != nil {
			return err
		}
	}
	settle := minSettle
	settled, aside := true, true // nothing is written yet
	for writes := 0; ; {
		began := time.Now()
		index, err := t.read(ctx)
		if err != nil {
			return err
		}
		switch missing := wanted.join(index); {
		case !missing && settled:
			return nil
		case !missing:
			settled = true
			err = registry.Sleep(ctx, settle+rand.N(settle/2))
		case !aside:
			// Someone else writes. What is written must have been read just
			// before; so the wait comes first.
			aside = true
			err = registry.Sleep(ctx, rand.N(settle))
		case writes == maxUpdates:
			return fmt.Errorf("others write it all the time; gave up after %d attempts: %w", maxUpdates, errdefs.ErrUnavailable)
		default:
			err = t.write(ctx, index)
			settled, aside = false, false
			settle = max(settle, min(3*time.Since(began), maxSettle))
			writes++
		}
		if err != nil {
			return err
		}
	}
}

// read returns the index under the tag, an empty one where the registry says that
// there is none. Any other answer is an error: what is there must not be lost.
func (t *fallbackTag) read(ctx context.Context) (*index, error) {
	a, err := t.repository.Get(ctx, t.host, t.url(), registry.AcceptAny)
	switch {
	case errors.Is(err, registry.ErrTooLarge):
		return nil, fmt.Errorf("its index is over the limit of %d bytes: %w", artifact.MaxManifestSize, err)
	case err != nil:
		return nil, err
	case a.Code == http.StatusNotFound:
		return newIndex(), nil
	case a.Code != http.StatusOK:
		return nil, fmt.Errorf("what it holds is not known, the registry answered %d %s: %w", a.Code, http.StatusText(a.Code), errdefs.ErrUnavailable)
	}
	if mediaType := a.MediaType(); images.IsManifestType(mediaType) || images.IsIndexType(mediaType) && mediaType != ocispec.MediaTypeImageIndex {
		return nil, fmt.Errorf("it holds no index but %q, which is not overwritten: %w", mediaType, errdefs.ErrFailedPrecondition)
	}
	index, err := parseIndex(a.Body)
	if err != nil {
		return nil, fmt.Errorf("what it holds is not overwritten: %w", err)
	}
	return index, nil
}

func (t *fallbackTag) write(ctx context.Context, i *index) error {
	data, err := i.encode()
	if err != nil {
		return err
	}
	if len(data) > artifact.MaxManifestSize {
		return fmt.Errorf("its index of %d entries would have %d bytes, the limit is %d; remove referrers from the registry: %w", len(i.entries), len(data), artifact.MaxManifestSize, errdefs.ErrResourceExhausted)
	}
	_, err = t.repository.PutManifest(ctx, t.host, t.name, ocispec.MediaTypeImageIndex, data)
	return err
}
