package registry

import (
	"encoding/json"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
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
			status: labels.Unknown, rejected: 4, answers: []string{"referrers: 200 unknown"}, requests: []string{api}},
		{name: "all are malformed, under the tag", script: missing(404, bad),
			status: labels.Unknown, rejected: 4, answers: []string{"referrers: 404", "tag: 200 unknown"}, requests: []string{api, tag}},
		{name: "all are malformed, over two pages", script: answering(bad.With("Link", next("?page=2")), bad),
			status: labels.Unknown, rejected: 8, answers: []string{"referrers, page 2: 200 unknown"}, requests: []string{api, api}},
		{name: "all are malformed, and an empty page", script: answering(bad.With("Link", next("?page=2")), hostile.Index()),
			status: labels.Unknown, rejected: 4, answers: []string{"referrers, page 2: 200 unknown"}, requests: []string{api, api}},
		{name: "a good one on the second page", script: answering(bad.With("Link", next("?page=2")), good),
			status: labels.Present, referrers: entries(9, 9), rejected: 4, answers: []string{"referrers, page 2: 200 present"}, requests: []string{api, api}},
		{name: "a good one on the first page", script: answering(good.With("Link", next("?page=2")), bad),
			status: labels.Present, referrers: entries(9, 9), rejected: 4, answers: []string{"referrers, page 2: 200 present"}, requests: []string{api, api}},
	} {
		tc.run(t)
	}
}

// TestMalformedEntryHidesNoOther has listings with one entry that cannot be read, in each
// field and at each place: it is refused, and the one beside it is found.
func TestMalformedEntryHidesNoOther(t *testing.T) {
	const whole = `"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7,"artifactType":"a/b"`
	good, err := json.Marshal(entry(9))
	if err != nil {
		t.Fatal(err)
	}
	for name, members := range map[string]string{
		"a number among annotations":     `"digest":"` + string(entry(1).Digest) + `",` + whole + `,"annotations":{"a":1}`,
		"annotations that are none":      `"annotations":[],` + whole,
		"annotations twice":              whole + `,"annotations":{"a":"b"},"annotations":{"c":"d"}`,
		"one annotation twice":           whole + `,"annotations":{"a":"b","a":"c"}`,
		"a digest that is an array":      `"digest":[],` + whole,
		"a digest that is a number":      `"digest":7,` + whole,
		"two digests":                    `"digest":"` + string(entry(1).Digest) + `","digest":"` + string(entry(2).Digest) + `",` + whole,
		"a digest in capitals":           `"digest":"` + string(entry(1).Digest) + `","DIGEST":"` + string(entry(2).Digest) + `",` + whole,
		"no digest":                      whole,
		"a size beyond 64 bits":          `"digest":"` + string(entry(1).Digest) + `","size":1180591620717411303424`,
		"a size with a fraction":         `"digest":"` + string(entry(1).Digest) + `","size":1.5`,
		"a size that is text":            `"digest":"` + string(entry(1).Digest) + `","size":"7"`,
		"a media type that is an object": `"digest":"` + string(entry(1).Digest) + `","mediaType":{}`,
		"an artifact type that is true":  `"digest":"` + string(entry(1).Digest) + `","artifactType":true`,
		"a field nobody knows, twice":    whole + `,"x":1,"x":2`,
		"a platform with a field twice":  whole + `,"platform":{"os":"a","os":"b"}`,
		"invalid UTF-8":                  whole + ",\"x\":\"\xff\"",
		"half a surrogate":               whole + `,"x":"\ud800"`,
	} {
		bad := "{" + members + "}"
		if name == "no digest" {
			bad = "7" // no object at all
		}
		both := hostile.Content(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[`+bad+`,`+string(good)+`]}`))
		alone := hostile.Content(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[`+bad+`]}`))
		for _, tc := range []row{
			{name: "beside it", script: answering(both), answers: []string{"referrers: 200 present"}, requests: []string{api}},
			{name: "under the tag", script: missing(404, both), answers: []string{"referrers: 404", "tag: 200 present"}, requests: []string{api, tag}},
			{name: "on a later page", script: answering(hostile.Index(entry(9)).With("Link", next("?page=2")), alone),
				answers: []string{"referrers, page 2: 200 present"}, requests: []string{api, api}},
			{name: "on a page before", script: answering(alone.With("Link", next("?page=2")), hostile.Index(entry(9))),
				answers: []string{"referrers, page 2: 200 present"}, requests: []string{api, api}},
		} {
			tc.name = name + ", " + tc.name
			tc.status, tc.referrers, tc.rejected = labels.Present, entries(9, 9), 1
			tc.run(t)
		}
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
		status    labels.Status
		referrers []ocispec.Descriptor
		answers   []string
	}{
		{"the registry lists", answering(bad), answering(good),
			labels.Present, entries(9, 9), []string{"mirror referrers: 200 unknown", "registry referrers: 200 present"}},
		{"the registry lists under the tag", missing(404, bad), missing(404, good),
			labels.Present, entries(9, 9), []string{"mirror referrers: 404", "mirror tag: 200 unknown", "registry referrers: 404", "registry tag: 200 present"}},
		{"the registry has none", answering(bad), answering(hostile.Index()),
			labels.Unknown, nil, []string{"mirror referrers: 200 unknown", "registry referrers: 200 absent"}},
		{"both", answering(bad), answering(bad),
			labels.Unknown, nil, []string{"mirror referrers: 200 unknown", "registry referrers: 200 unknown"}},
		{"the mirror has none", answering(hostile.Index()), answering(bad),
			labels.Unknown, nil, []string{"mirror referrers: 200 absent", "registry referrers: 200 unknown"}},
		{"the registry lists what the mirror did, and no more", answering(half...), answering(good),
			labels.Present, entries(8, 9), []string{"mirror referrers, page 2: 403 unknown", "registry referrers: 200 present"}},
		{"so does the registry's tag", answering(half...), missing(404, good),
			labels.Present, entries(8, 9), []string{"mirror referrers, page 2: 403 unknown", "registry referrers: 404", "registry tag: 200 present"}},
		{"what the mirror listed does not vouch for the registry", answering(half...), answering(bad),
			labels.Unknown, entries(8, 9), []string{"mirror referrers, page 2: 403 unknown", "registry referrers: 200 unknown"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mirror, upstream := hostile.New(t), hostile.New(t)
			tc.mirror(mirror)
			tc.upstream(upstream)
			r := repositoryAt(t, upstream.Host(), twice, mirror.RegistryHost(pullResolve), upstream.RegistryHost(byDefault))
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
			l, err := repositoryAt(t, "registry.test", twice, mirror.RegistryHost(pullResolve)).List(t.Context(), subject)
			if err != nil || l.Status != labels.Truncated {
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
