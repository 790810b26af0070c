package judge

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// Evidence is examined by the set of trusts that the case has when its examination begins, and
// without holding c.mu. Whoever has examined a piece adds it only if that set is still the
// case's: Refresh has put another in its place otherwise, and examines the referrer again.

// blobKey is a blob as a layer names it: of what it proves, cosign keeps a part in annotations.
type blobKey struct {
	subject, blob digest.Digest
	size          int64
	format        evidence.Format
	mediaType     string // which a verifier may read it by
	annotations   string
}

// weighing is what a piece of evidence turned out to be worth.
type weighing struct {
	verdict.Weight
	result evidence.Result
}

// referrer is one that has been examined, to examine it again by other trusts.
type referrer struct{ subject, desc ocispec.Descriptor }

func (r referrer) is(other referrer) bool {
	return r.subject.Digest == other.subject.Digest && r.desc.Digest == other.desc.Digest
}

// Examine examines the evidence that a referrer of a subject names. The referrer must be
// complete in the store that Read reads. One that has been examined is passed over.
func (c *Case) Examine(ctx context.Context, subject, desc ocispec.Descriptor, m *artifact.Manifest) {
	c.mu.Lock()
	r := referrer{subject: artifact.Plain(subject), desc: artifact.Plain(desc)}
	again := slices.ContainsFunc(c.referrers, r.is)
	if !again {
		c.referrers = append(c.referrers, r)
	}
	set := c.set
	c.mu.Unlock()
	if !again {
		c.examine(ctx, set, r, m)
	}
}

// examine adds what the evidence of a referrer is worth by the trusts of a set.
func (c *Case) examine(ctx context.Context, set *trust.Set, r referrer, m *artifact.Manifest) {
	layers, err := c.layers(ctx, r.desc, m)
	var pieces []verdict.Piece
	for _, l := range layers {
		pieces = append(pieces, verdict.Piece{
			Subject: r.subject.Digest, Referrer: r.desc.Digest, ArtifactType: m.ArtifactType, Format: l.Format,
			Weight: c.weighOnce(ctx, set, r.subject, l),
		})
	}
	if ctx.Err() != nil { // what was read last may not be known to its end
		c.forget(r)
		return
	}
	cut := ""
	if err != nil {
		cut = fmt.Sprintf("referrer %s is not examined to its end: %v", verdict.Short(r.desc.Digest), err)
		if len(layers) == 0 {
			pieces = []verdict.Piece{{Subject: r.subject.Digest, Referrer: r.desc.Digest, ArtifactType: m.ArtifactType, Weight: verdict.Unread("its manifest cannot be read: " + err.Error())}}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set != set { // Refresh examines it again
		return
	}
	if cut != "" {
		c.cut = cut
	}
	c.add(pieces)
}

// forget has a referrer that could not be examined be examined when it is met again.
func (c *Case) forget(r referrer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.referrers = slices.DeleteFunc(c.referrers, r.is)
}

// weighOnce weighs a piece of evidence, once however many referrers and layers name it.
func (c *Case) weighOnce(ctx context.Context, set *trust.Set, subject ocispec.Descriptor, l evidence.Layer) verdict.Weight {
	annotations, _ := json.Marshal(l.Descriptor.Annotations) // a map of strings; its keys are sorted
	key := blobKey{subject.Digest, l.Descriptor.Digest, l.Descriptor.Size, l.Format, l.Descriptor.MediaType, string(annotations)}
	c.mu.Lock()
	known, ok := c.weighed[key]
	ok = ok && c.set == set
	switch {
	case ok:
	case len(c.pieces) >= maxPieces || c.bytes+l.Descriptor.Size > maxBytes:
		c.cut = fmt.Sprintf("the image has more than %d pieces or %d MiB of evidence, and no more are examined", maxPieces, maxBytes>>20)
		known, ok = weighing{verdict.Unread("it is one too many to be examined"), evidence.ResultUnread}, true
	default:
		c.bytes += max(l.Descriptor.Size, 0)
	}
	c.mu.Unlock()
	if ok {
		return known.Weight
	}
	weight, result := c.weigh(ctx, set, subject, l)
	if c.j.observer != nil {
		c.j.observer.Evidence(l.Format, result)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set == set && result != evidence.ResultUnread { // a registry may be there the next time
		c.weighed[key] = weighing{weight, result}
	}
	return weight
}

// layers returns the evidence that a referrer names. What its manifest says of layers is read
// now: of a hundred referrers whose blobs are on their way, it would fill the memory.
func (c *Case) layers(ctx context.Context, desc ocispec.Descriptor, m *artifact.Manifest) ([]evidence.Layer, error) {
	return evidence.Of(m, func() ([]byte, error) {
		if err := c.room().Acquire(ctx, max(desc.Size, 1)); err != nil {
			return nil, err
		}
		defer c.room().Release(max(desc.Size, 1))
		return c.config.ReadManifest(ctx, artifact.Plain(desc))
	})
}

// add is for those who hold c.mu.
func (c *Case) add(pieces []verdict.Piece) {
	if room := maxPieces - len(c.pieces); len(pieces) > room {
		pieces = pieces[:room]
		c.cut = fmt.Sprintf("the image has more than %d pieces or %d MiB of evidence, and no more are examined", maxPieces, maxBytes>>20)
	}
	if c.pieces = append(c.pieces, pieces...); len(pieces) > 0 {
		c.notify()
	}
}

// full reports whether no more evidence is examined.
func (c *Case) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pieces) >= maxPieces
}

// weigh reads a piece of evidence, verifies it by each trust that the rule names, and finds
// what it is worth.
func (c *Case) weigh(ctx context.Context, set *trust.Set, subject ocispec.Descriptor, l evidence.Layer) (verdict.Weight, evidence.Result) {
	if why := c.unasked(l); why != "" {
		return verdict.Unread(why), evidence.ResultUnread
	}
	size := l.Descriptor.Size
	if size > evidence.MaxSize {
		return verdict.Unread(fmt.Sprintf("it has %d bytes, and evidence over %d bytes is not read", size, evidence.MaxSize)), evidence.ResultUnread
	}
	if err := c.room().Acquire(ctx, max(size, 1)); err != nil {
		return verdict.Unread("it was not read: " + err.Error()), evidence.ResultUnread
	}
	defer c.room().Release(max(size, 1))
	data, err := c.config.Read(ctx, artifact.Plain(l.Descriptor))
	if err != nil {
		return verdict.Unread("it cannot be read: " + err.Error()), evidence.ResultUnread
	}
	if l.Format == evidence.Statement {
		return c.weighStatement(data, subject)
	}
	return c.weighSigned(ctx, set, evidence.Evidence{
		Format: l.Format, Subject: subject, Repository: c.config.Repository,
		MediaType: l.Descriptor.MediaType, Data: data, Annotations: l.Descriptor.Annotations,
	})
}

// unasked says why a piece need not be read: SBOMs are large, and no requirement may be about
// them. It goes by what the manifest says: who mislabels evidence hides their own.
func (c *Case) unasked(l evidence.Layer) string {
	if l.Format == evidence.Statement && len(c.types) == 0 {
		return "it is a statement, and no requirement asks for an attestation"
	}
	if l.PredicateType == "" || l.PredicateType == evidence.CosignSign || slices.Contains(c.types, l.PredicateType) {
		return ""
	}
	return fmt.Sprintf("it is said to attest %.200q, which no requirement asks for", l.PredicateType)
}

func (c *Case) weighStatement(data []byte, subject ocispec.Descriptor) (verdict.Weight, evidence.Result) {
	s, err := evidence.ReadStatement(data, subject.Digest)
	if err != nil {
		return verdict.Unread(err.Error()), evidence.ResultInvalid
	}
	return verdict.WeighStatement(c.config.Selection.Requirements(), s), evidence.ResultStranger
}

func (c *Case) weighSigned(ctx context.Context, set *trust.Set, e evidence.Evidence) (verdict.Weight, evidence.Result) {
	var proofs []verdict.Proof
	result := evidence.ResultInvalid
	for _, name := range c.by {
		v, err := set.Verify(ctx, name, e)
		switch {
		case err == nil:
			proofs = append(proofs, verdict.Proof{Trust: name, Verified: v})
			result = evidence.ResultVerified
			continue
		case errdefs.IsNotImplemented(err):
			continue // the trust has no say in it
		case errdefs.IsPermissionDenied(err) && result == evidence.ResultInvalid:
			result = evidence.ResultStranger
		}
		proofs = append(proofs, verdict.Proof{Trust: name, Why: reasonOf(err)})
	}
	if len(proofs) == 0 {
		return verdict.Unread(fmt.Sprintf("no trust that the rule names (%s) is for evidence of the format %s", strings.Join(c.by, ", "), e.Format)), evidence.ResultStranger
	}
	return verdict.Weigh(c.config.Selection.Requirements(), c.config.Repository, proofs), result
}

// reasonOf is the text of a verifier's error without the words of its class.
func reasonOf(err error) string {
	text := err.Error()
	for _, class := range []error{errdefs.ErrPermissionDenied, errdefs.ErrInvalidArgument} {
		text = strings.TrimSuffix(text, ": "+class.Error())
	}
	return text
}

// Refresh examines all evidence again if the operator's trusts have changed.
func (c *Case) Refresh(ctx context.Context) {
	now := c.j.trusts.Now(ctx)
	c.mu.Lock()
	same := now.Generation == c.set.Generation
	referrers := slices.Clone(c.referrers)
	if !same {
		c.set, c.cut, c.bytes, c.weighed = now, "", 0, map[blobKey]weighing{}
		c.pieces = slices.DeleteFunc(c.pieces, func(p verdict.Piece) bool {
			return slices.ContainsFunc(referrers, func(r referrer) bool { return r.subject.Digest == p.Subject && r.desc.Digest == p.Referrer })
		})
	}
	c.mu.Unlock()
	if same {
		return
	}
	for _, r := range referrers {
		data, err := c.config.ReadManifest(ctx, r.desc)
		var m *artifact.Manifest
		if err == nil {
			m, err = artifact.Parse(data, "")
		}
		if err != nil {
			c.note(r.subject.Digest, r.desc.Digest, "it cannot be read again: "+err.Error())
			continue
		}
		c.examine(ctx, now, r, m)
	}
}

// note adds a referrer that is not examined, and why.
func (c *Case) note(subject, dgst digest.Digest, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add([]verdict.Piece{{Subject: subject, Referrer: dgst, Weight: verdict.Unread(why)}})
}
