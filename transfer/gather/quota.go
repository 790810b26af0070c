package gather

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// Limits bound what one pull may take. All must be positive.
type Limits struct {
	// Timeout is how long Wait waits once the image itself is complete.
	Timeout time.Duration
	// MaxReferrers is how many are taken for one subject.
	MaxReferrers int
	// MaxBlobSize is how large one blob may be, in bytes.
	MaxBlobSize int64
	// MaxTotalSize is how much the referrers of one pull may hold, in bytes,
	// manifests and blobs.
	MaxTotalSize int64
	// MaxConcurrentDownloads is how many manifests and blobs come in at a
	// time; as many listings again.
	MaxConcurrentDownloads int
}

// DefaultLimits are those of the configuration's defaults.
var DefaultLimits = Limits{
	Timeout:                30 * time.Second,
	MaxReferrers:           100,
	MaxBlobSize:            32 << 20,
	MaxTotalSize:           128 << 20,
	MaxConcurrentDownloads: 3,
}

const (
	// maxPieces is how many manifests and blobs one pull may take in all: an index of
	// indexes of small artifacts has tens of thousands in few bytes, each a request and
	// a file.
	maxPieces = 10_000
	// maxRemembered is how many bytes one pull keeps of the entries of listings after it
	// has judged them: those that it skipped, with their reasons, as explain's JSON has
	// them, and those that it can compare with what is stored. A thousand subjects with
	// a thousand entries each would fill a node's memory.
	maxRemembered = 4 << 20
	// maxDoubts is how many bytes more are for reasons to doubt a status.
	maxDoubts = 2 << 20
)

// quota holds every limit and counter of one pull. Its methods take something from what
// the pull may have; an error names the limit that is reached (see limitOf), and then
// nothing is taken. mayRequest and left only look. It is safe for concurrent use.
type quota struct {
	limits Limits

	mu         sync.Mutex
	images     int                 // subjects that are the image's own
	others     int                 // subjects that are referrers
	accepted   map[acceptedKey]int // referrers of each subject
	taken      int                 // referrers of all subjects
	asked      int                 // referrers whose manifest must decide
	reserved   map[contentKey]bool // manifests and blobs
	bytes      int64               // that those hold
	failed     int                 // requests for manifests that failed
	discarded  int64               // bytes of manifests that came to nothing
	remembered int                 // bytes of what is kept of listings
}

// acceptedKey counts what the image's index holds apart from what a registry lists: neither
// can use up the room of the other.
type acceptedKey struct {
	subject digest.Digest
	via     outcome.Origin
}

// contentKey tells content apart as descriptors do: one that lies about a size must
// not fail for the others.
type contentKey struct {
	digest digest.Digest
	size   int64
}

// childKey tells manifests within referrers apart as the indexes that name them do.
type childKey struct {
	contentKey
	mediaType string
}

func newQuota(limits Limits) *quota {
	return &quota{limits: limits, accepted: map[acceptedKey]int{}, reserved: map[contentKey]bool{}}
}

// addSubject counts a subject, of the image or not.
func (q *quota) addSubject(image bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	count := &q.others
	if image {
		count = &q.images
	}
	if *count == outcome.MaxSubjects {
		return exhausted(outcome.LimitSubjects, "over the limit of %d subjects a pull", outcome.MaxSubjects)
	}
	*count++
	return nil
}

// accept counts a referrer of the subject that is to be taken.
func (q *quota) accept(subject digest.Digest, via outcome.Origin) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := acceptedKey{subject, via}
	switch {
	case q.accepted[key] == q.limits.MaxReferrers:
		return exhausted(outcome.LimitReferrers, "over the limit of %d referrers a subject (key max_referrers)", q.limits.MaxReferrers)
	case q.taken == outcome.MaxSubjects:
		return exhausted(outcome.LimitPull, "over the limit of %d referrers a pull", outcome.MaxSubjects)
	}
	q.accepted[key]++
	q.taken++
	return nil
}

// left returns how many more listed referrers of the subject may be accepted.
func (q *quota) left(subject digest.Digest) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limits.MaxReferrers - q.accepted[acceptedKey{subject, outcome.Listed}]
}

// ask counts a referrer whose manifest must be read to decide on it.
func (q *quota) ask() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asked == outcome.MaxSubjects {
		return exhausted(outcome.LimitPull, "over the limit of %d referrers a pull whose manifest must decide", outcome.MaxSubjects)
	}
	q.asked++
	return nil
}

// mayRequest reports whether a manifest may be asked for. Those that are read and then not
// taken may come to as many bytes as one pull may take.
func (q *quota) mayRequest() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(q.reserved)+q.failed >= maxPieces:
		return exhaustedPieces()
	case q.discarded >= q.limits.MaxTotalSize:
		return exhausted(outcome.LimitTotalSize, "its manifest is not read: those that were read and not taken came to %d bytes (key max_total_size)", q.limits.MaxTotalSize)
	}
	return nil
}

// fail counts a request for a manifest that failed. How much came of one with wrong bytes
// is not known.
func (q *quota) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failed++
	if errdefs.IsFailedPrecondition(err) {
		q.discarded += artifact.MaxManifestSize
	}
}

// discard counts a manifest that was read and is not taken.
func (q *quota) discard(data []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.discarded += int64(len(data))
}

// reserve counts content of referrers, each once.
func (q *quota) reserve(desc ocispec.Descriptor) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := contentKey{desc.Digest, desc.Size}
	switch {
	case q.reserved[key]:
		return nil
	case desc.Size > q.limits.MaxTotalSize-q.bytes:
		return exhausted(outcome.LimitTotalSize, "%s: the pull's referrers are over the limit of %d bytes in all (key max_total_size)", desc.Digest, q.limits.MaxTotalSize)
	case len(q.reserved)+q.failed >= maxPieces:
		return fmt.Errorf("%s: %w", desc.Digest, exhaustedPieces())
	}
	q.reserved[key] = true
	q.bytes += desc.Size
	return nil
}

// remember counts bytes that are kept of listings. A reason to doubt a status finds room
// where others find none.
func (q *quota) remember(bytes int, doubt bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	limit := maxRemembered
	if doubt {
		limit += maxDoubts
	}
	if bytes > limit-q.remembered {
		return exhausted(outcome.LimitOther, "one pull tells of as many as fit into %d MiB", maxRemembered>>20)
	}
	q.remembered += bytes
	return nil
}

func exhaustedPieces() error {
	return exhausted(outcome.LimitOther, "the pull's referrers are over the limit of %d manifests and blobs in all", maxPieces)
}

// exhausted returns an errdefs.ErrResourceExhausted of the limit.
func exhausted(limit outcome.Limit, format string, args ...any) error {
	return over(limit, fmt.Errorf(format+": %w", append(args, errdefs.ErrResourceExhausted)...))
}

// limitError says which limit an error is of.
type limitError struct {
	error
	limit outcome.Limit
}

func (e limitError) Unwrap() error { return e.error }

// over marks an errdefs.ErrResourceExhausted with its limit, where it has none yet.
func over(limit outcome.Limit, err error) error {
	if !errdefs.IsResourceExhausted(err) || errors.As(err, new(limitError)) {
		return err
	}
	return limitError{err, limit}
}

// limitOf returns the limit that an errdefs.ErrResourceExhausted is of.
func limitOf(err error) outcome.Limit {
	var l limitError
	switch {
	case errors.As(err, &l):
		return l.limit
	case errors.Is(err, registry.ErrTooLarge): // blobs are not read whole
		return outcome.LimitManifest
	}
	return outcome.LimitOther
}
