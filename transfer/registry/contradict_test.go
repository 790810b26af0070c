package registry

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// as is an entry with another artifact type, "" for none.
func as(d ocispec.Descriptor, artifactType string) ocispec.Descriptor {
	d.ArtifactType = artifactType
	return d
}

func annotated(d ocispec.Descriptor, predicate string) ocispec.Descriptor {
	d.Annotations = map[string]string{"dev.sigstore.bundle.predicateType": predicate}
	return d
}

// Entries of one digest that say different things say nothing: policy must not pass over
// what is wanted for a wrong type that came first.
func TestEntriesThatContradictEachOtherSayNothing(t *testing.T) {
	const decoy = "text/decoy"
	one, two := entry(1), entry(2)
	nothing := as(one, "")
	for _, tc := range []struct {
		name  string
		pages [][]ocispec.Descriptor
		want  []ocispec.Descriptor
		found []ocispec.Descriptor // as handed over
	}{
		{"in one page, the decoy first", [][]ocispec.Descriptor{{as(one, decoy), two, one}},
			[]ocispec.Descriptor{nothing, two}, []ocispec.Descriptor{nothing, two}},
		{"in one page, the decoy last", [][]ocispec.Descriptor{{one, two, as(one, decoy)}},
			[]ocispec.Descriptor{nothing, two}, []ocispec.Descriptor{nothing, two}},
		{"one without a type", [][]ocispec.Descriptor{{one, as(one, "")}},
			[]ocispec.Descriptor{nothing}, []ocispec.Descriptor{nothing}},
		{"other annotations", [][]ocispec.Descriptor{{annotated(one, "a"), annotated(one, "b")}},
			[]ocispec.Descriptor{nothing}, []ocispec.Descriptor{nothing}},
		{"the same twice", [][]ocispec.Descriptor{{annotated(one, "a"), annotated(one, "a")}, {annotated(one, "a"), two}},
			[]ocispec.Descriptor{annotated(one, "a"), two}, []ocispec.Descriptor{annotated(one, "a"), two}},
		{"on a later page", [][]ocispec.Descriptor{{as(one, decoy)}, {two, one}},
			[]ocispec.Descriptor{nothing, two}, []ocispec.Descriptor{as(one, decoy), nothing, two}},
		{"on every page", [][]ocispec.Descriptor{{as(one, decoy)}, {one, as(one, "text/other")}, {as(one, "text/third"), one}},
			[]ocispec.Descriptor{nothing}, []ocispec.Descriptor{as(one, decoy), nothing}},
		{"on a later page, of one that says nothing", [][]ocispec.Descriptor{{nothing}, {one}},
			[]ocispec.Descriptor{nothing}, []ocispec.Descriptor{nothing}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hostile.New(t)
			var pages []hostile.Answer
			for i, page := range tc.pages {
				a := hostile.Index(page...)
				if i+1 < len(tc.pages) {
					a = a.With("Link", next("?page="+string(rune('2'+i))))
				}
				pages = append(pages, a)
			}
			s.On(api, pages...)
			var found []ocispec.Descriptor
			l, err := repositoryAt(t, s.Host(), twice, s.RegistryHost(pullResolve)).ListEach(t.Context(), subject, func(page []ocispec.Descriptor) {
				found = append(found, page...)
			})
			if err != nil || l.Status != labels.Present {
				t.Errorf("%s, %v, want present", l.Status, err)
			}
			checkDigests(t, l.Referrers, tc.want)
			checkDigests(t, found, tc.found)
			for _, d := range l.Referrers {
				if d.ArtifactType == "" && d.Annotations != nil {
					t.Errorf("%s has no type, and keeps %v", d.Digest, d.Annotations)
				}
			}
		})
	}
}

// A mirror that lists a wrong type, and then fails, must not mask the registry's entry.
func TestMirrorsTypeDoesNotMaskTheRegistrys(t *testing.T) {
	mirror, upstream := hostile.New(t), hostile.New(t)
	mirror.On(api, hostile.Index(as(entry(1), "text/decoy")).With("Link", next("?page=2")), hostile.Status(403))
	upstream.On(api, hostile.Index(entry(1)))
	var found []ocispec.Descriptor
	l, err := repositoryAt(t, upstream.Host(), twice, mirror.RegistryHost(pullResolve), upstream.RegistryHost(byDefault)).
		ListEach(t.Context(), subject, func(page []ocispec.Descriptor) { found = append(found, page...) })
	if err != nil || l.Status != labels.Present {
		t.Errorf("%s, %v, want present", l.Status, err)
	}
	checkDigests(t, l.Referrers, []ocispec.Descriptor{as(entry(1), "")})
	checkDigests(t, found, []ocispec.Descriptor{as(entry(1), "text/decoy"), as(entry(1), "")})
}
