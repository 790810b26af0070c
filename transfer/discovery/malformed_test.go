package discovery

import (
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// malformed are entries that cannot be what they claim, each in its own way.
func malformed() []ocispec.Descriptor {
	path, size, self, other := entry(1), entry(2), entry(3), entry(4)
	path.Digest = "../../../_catalog"
	size.Size = -1
	self.Digest = subject
	other.MediaType = ocispec.MediaTypeImageLayer
	return []ocispec.Descriptor{path, size, self, other}
}

// TestListingOfNothingThatCanBe has registries that list, and list nothing that
// can be: neither "there are some" nor "there are none" is known.
func TestListingOfNothingThatCanBe(t *testing.T) {
	bad, good := hostile.Index(malformed()...), hostile.Index(entry(9))
	for _, tc := range []row{
		{name: "all are malformed", script: answering(bad),
			status: Unknown, rejected: 4, answers: []string{"referrers: 200 unknown"}, requests: []string{api}},
		{name: "all are malformed, under the tag", script: missing(404, bad),
			status: Unknown, rejected: 4, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
		{name: "all are malformed, over two pages", script: answering(bad.With("Link", next("?page=2")), bad),
			status: Unknown, rejected: 8, answers: []string{"referrers, page 2: 200 unknown"}, requests: []string{api, api}},
		{name: "all are malformed, and an empty page", script: answering(bad.With("Link", next("?page=2")), hostile.Index()),
			status: Unknown, rejected: 4, answers: []string{"referrers, page 2: 200 unknown"}, requests: []string{api, api}},
		{name: "a good one on the second page", script: answering(bad.With("Link", next("?page=2")), good),
			status: Present, referrers: entries(9, 9), rejected: 4, answers: []string{"referrers, page 2: 200 present"}, requests: []string{api, api}},
		{name: "a good one on the first page", script: answering(good.With("Link", next("?page=2")), bad),
			status: Present, referrers: entries(9, 9), rejected: 4, answers: []string{"referrers, page 2: 200 present"}, requests: []string{api, api}},
	} {
		tc.run(t)
	}
}

// TestListingOfNothingThatCanBeHidesNoOther has such a listing at a mirror or at
// the registry behind it.
func TestListingOfNothingThatCanBeHidesNoOther(t *testing.T) {
	bad, good := hostile.Index(malformed()...), hostile.Index(entry(9))
	// Two entries, and a second page that fails: what came counts for the next.
	half := []hostile.Answer{hostile.Index(entries(8, 9)...).With("Link", next("?page=2")), hostile.Status(403)}
	for _, tc := range []struct {
		name      string
		mirror    func(*hostile.Server)
		upstream  func(*hostile.Server)
		status    Status
		referrers []ocispec.Descriptor
		answers   []string
	}{
		{"the registry lists", answering(bad), answering(good),
			Present, entries(9, 9), []string{"mirror referrers: 200 unknown", "registry referrers: 200 present"}},
		{"the registry lists under the tag", missing(404, bad), missing(404, good),
			Present, entries(9, 9), []string{"mirror referrers: 404", "mirror tag: 200 unknown", "registry referrers: 404", "registry tag: 200 present"}},
		{"the registry has none", answering(bad), answering(hostile.Index()),
			Unknown, nil, []string{"mirror referrers: 200 unknown", "registry referrers: 200 absent"}},
		{"both", answering(bad), answering(bad),
			Unknown, nil, []string{"mirror referrers: 200 unknown", "registry referrers: 200 unknown"}},
		{"the mirror has none", answering(hostile.Index()), answering(bad),
			Unknown, nil, []string{"mirror referrers: 200 absent", "registry referrers: 200 unknown"}},
		{"the registry lists what the mirror did, and no more", answering(half...), answering(good),
			Present, entries(8, 9), []string{"mirror referrers, page 2: 403 unknown", "registry referrers: 200 present"}},
		{"so does the registry's tag", answering(half...), missing(404, good),
			Present, entries(8, 9), []string{"mirror referrers, page 2: 403 unknown", "registry referrers: 404", "registry tag: 200 present"}},
		{"what the mirror listed does not vouch for the registry", answering(half...), answering(bad),
			Unknown, entries(8, 9), []string{"mirror referrers, page 2: 403 unknown", "registry referrers: 200 unknown"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mirror, upstream := hostile.New(t), hostile.New(t)
			tc.mirror(mirror)
			tc.upstream(upstream)
			r := registry(t, upstream.Host(), quick, mirror.RegistryHost(pullResolve), upstream.RegistryHost(byDefault))
			l, err := r.List(t.Context(), subject)
			if err != nil || l.Status != tc.status {
				t.Errorf("%s, %v, want %s", l.Status, err, tc.status)
			}
			checkDigests(t, l.Referrers, tc.referrers)
			if got := answers(l, map[string]string{mirror.Host(): "mirror", upstream.Host(): "registry"}); !slices.Equal(got, tc.answers) {
				t.Errorf("answers %q, want %q", got, tc.answers)
			}
		})
	}
}

// TestMirrorThatLinksToItselfIsLeft has mirrors that leave the parameter "ns" out
// of their links: with it, such a link leads back to the page it stands on.
func TestMirrorThatLinksToItselfIsLeft(t *testing.T) {
	for name, target := range map[string]string{
		"its path":              api,
		"nothing but a query":   "?",
		"its last part":         "./" + subject.String(),
		"its path and the name": api + "?ns=registry.test",
	} {
		t.Run(name, func(t *testing.T) {
			mirror := hostile.New(t)
			mirror.On(api, hostile.Index(entry(1)).With("Link", next(target)))
			l, err := registry(t, "registry.test", quick, mirror.RegistryHost(pullResolve)).List(t.Context(), subject)
			if err != nil || l.Status != Truncated {
				t.Errorf("%s, %v, want truncated", l.Status, err)
			}
			checkDigests(t, l.Referrers, entries(1, 1))
			checkAnswers(t, l.Answers, mirror.Host(), []string{"referrers: 200 truncated"})
			if got := len(mirror.Requests()); got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
		})
	}
}
