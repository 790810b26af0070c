package gate

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// question is what a verdict depends on, but for what is tied to the image.
type question struct {
	image      Image
	records    []record
	generation uint64 // of the trusts
}

// named is a verdict on an image under one of its names.
type named struct {
	Name   string
	Result verdict.Result
	Mode   policy.Verify
	Rule   string
	Reason string
}

// judgeAll judges an image under its names, one of each repository, and returns what it looked
// at. No names but those that are ruled are judged.
func (g *Gate) judgeAll(ctx context.Context, q question) ([]named, []judge.Subject, error) {
	var out []named
	var subjects []judge.Subject
	for i, r := range q.records {
		if slices.ContainsFunc(q.records[:i], func(before record) bool { return before.beside(r) }) {
			continue
		}
		selection, err := g.config.Policy.Select(r.repository, nil)
		if err != nil {
			return nil, nil, err
		}
		v, looked, err := g.judgeName(ctx, q, r, selection)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", clipName(r.name), err)
		}
		subjects = append(subjects, looked...)
		out = append(out, named{r.name, v.Result, v.Mode, v.Rule, v.Reason})
	}
	return out, subjects, nil
}

// judgeName judges an image under a name. What runs is the config, and several images may hold
// it: evidence of any of them is about the same content. The verdict on the name's own is that
// which counts where none holds.
func (g *Gate) judgeName(ctx context.Context, q question, r record, selection *policy.Selection) (*verdict.Verdict, []judge.Subject, error) {
	var first *verdict.Verdict
	var firstErr error
	var subjects []judge.Subject
	for _, root := range roots(q, r) {
		v, looked, err := g.config.Judge.Stored(ctx, g.config.Store, judge.Image{
			Name: r.name, Repository: r.repository, Target: root, Selection: selection, Config: q.image.Config, Early: true,
		})
		subjects = append(subjects, looked...)
		switch {
		case ctx.Err() != nil:
			return nil, nil, errLate
		case err != nil && firstErr == nil:
			firstErr = err
		case err != nil:
		case v.Result != verdict.Refused || selection.Denied():
			return v, subjects, nil
		case first == nil:
			first = v
		}
	}
	if first == nil {
		return nil, nil, firstErr
	}
	return first, subjects, nil
}

// roots returns the images that hold what runs: those of the name's repository first, then
// that which the runtime names.
func roots(q question, r record) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	add := func(when func(record) bool) {
		for _, other := range q.records {
			known := slices.ContainsFunc(out, func(d ocispec.Descriptor) bool { return d.Digest == other.target.Digest })
			if when(other) && !known {
				out = append(out, other.target)
			}
		}
	}
	add(func(other record) bool { return other.name == r.name })
	add(func(other record) bool { return other.beside(r) })
	add(func(other record) bool { return other.target.Digest == q.image.Digest })
	if q.image.Config != "" { // else nothing says that they hold the same
		add(func(record) bool { return true })
	}
	return out
}
