package gather

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Requests are counted: they are exact where time is not.
func TestRequests(t *testing.T) {
	w := newWorld(t)
	shared := w.serve("shared by both")
	a, b := w.artifact(spdx, &w.subject, shared, w.serve("a")), w.artifact(spdx, &w.subject, shared, w.serve("b"))
	w.list(w.subject, a, b, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.other", Digest: digest.FromString("other"), Size: 9})
	rule := policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}
	w.gather(rule)
	w.wantTied(w.subject, a, b)
	for what, want := range map[string]int{"/referrers/": 1, "/manifests/": 2, "/blobs/": 3} { // the config {} costs none
		if n := w.asked(what); n != want {
			t.Errorf("%d requests for %s, want %d: %v", n, what, want, w.server.Paths())
		}
	}
	before := len(w.server.Paths())
	w.gather(rule)
	if n := len(w.server.Paths()) - before; n != 1 {
		t.Errorf("%d requests where all is stored, want the listing alone", n)
	}
}

// Inline data that is what its descriptor says costs no request, and is stored.
func TestInlineDataIsNotFetched(t *testing.T) {
	w := newWorld(t)
	inline := ocispec.Descriptor{MediaType: "text/spdx", Digest: digest.FromString("inline"), Size: 6, Data: []byte("inline")}
	child := w.manifest(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{inline}}, ocispec.MediaTypeImageManifest, "")
	data, err := remoteManifest(w, child)
	if err != nil {
		t.Fatal(err)
	}
	child.Data = data
	one := w.artifact(spdx, &w.subject, inline)
	two := w.manifest(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, ArtifactType: spdx, Subject: &w.subject, Manifests: []ocispec.Descriptor{child}}, ocispec.MediaTypeImageIndex, spdx)
	w.list(w.subject, one, two)
	before := len(w.server.Paths())
	w.gather(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1})
	w.wantTied(w.subject, one, two)
	if n := len(w.server.Paths()) - before; n != 3 {
		t.Errorf("%d requests, want the listing and two manifests: %v", n, w.server.Paths()[before:])
	}
	for _, desc := range []ocispec.Descriptor{inline, child} {
		if got, err := content.ReadBlob(w.ctx, w.store, artifact.Plain(desc)); err != nil || !bytes.Equal(got, desc.Data) {
			t.Errorf("%s is stored as %q: %v", desc.Digest, got, err)
		}
	}
}

// A second pull repairs what a first one, or someone else, left half: a manifest
// without its blobs, or without its labels.
func TestHalfStoredReferrerIsMadeWhole(t *testing.T) {
	w := newWorld(t)
	blob := w.serve("sbom")
	sbom := w.artifact(spdx, &w.subject, blob)
	w.list(w.subject, sbom)
	w.gather(sboms)
	if err := w.store.Delete(w.ctx, blob.Digest); err != nil {
		t.Fatal(err)
	}
	info, err := w.store.Info(w.ctx, sbom.Digest)
	if err != nil {
		t.Fatal(err)
	}
	info.Labels = nil
	if _, err := w.store.Update(w.ctx, info); err != nil {
		t.Fatal(err)
	}
	w.gather(sboms)
	if _, err := w.store.Info(w.ctx, blob.Digest); err != nil {
		t.Error(err)
	}
	if info, err = w.store.Info(w.ctx, sbom.Digest); err != nil {
		t.Fatal(err)
	}
	for key, value := range labels.Children(ocispec.DescriptorEmptyJSON.Digest, blob.Digest) {
		if info.Labels[key] != value {
			t.Errorf("label %s is %q, want %s", key, info.Labels[key], value)
		}
	}
}

// What cosign stored under tags of its own is found where the listing has nothing
// of its set, and is asked for only where its type is wanted.
func TestCosignTags(t *testing.T) {
	const simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	for _, tc := range []struct {
		name   string
		mode   CosignTags
		types  []string
		listed bool // a signature is listed as well
		asked  map[string]int
		status labels.Status
	}{
		{"auto", CosignAuto, []string{artifact.SetSignatures}, false, map[string]int{".sig": 1, ".att": 0, ".sbom": 0}, labels.Present},
		{"auto, one is listed", CosignAuto, []string{artifact.SetSignatures}, true, map[string]int{".sig": 0, ".att": 0, ".sbom": 0}, labels.Present},
		{"auto, all", CosignAuto, []string{policy.SetAll}, false, map[string]int{".sig": 1, ".att": 1, ".sbom": 1}, labels.Present},
		{"always", CosignAlways, []string{artifact.SetSignatures}, true, map[string]int{".sig": 1, ".att": 0, ".sbom": 0}, labels.Present},
		{"never", CosignNever, []string{artifact.SetSignatures}, false, map[string]int{".sig": 0, ".att": 0, ".sbom": 0}, labels.Absent},
		{"not wanted", CosignAlways, []string{artifact.SetSBOMs}, false, map[string]int{".sig": 0, ".att": 0, ".sbom": 1}, labels.Absent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			layer := w.serve("payload")
			layer.MediaType = simpleSigning
			config := w.serve(`{"architecture":"","os":""}`)
			config.MediaType = ocispec.MediaTypeImageConfig
			sig := w.manifest(ocispec.Manifest{
				MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
			}, ocispec.MediaTypeImageManifest, "")
			tag := base + "manifests/sha256-" + w.subject.Digest.Encoded() + ".sig"
			data, err := remoteManifest(w, sig)
			if err != nil {
				t.Fatal(err)
			}
			w.server.On(tag, hostile.Content(ocispec.MediaTypeImageManifest, data))
			if tc.listed {
				w.list(w.subject, w.artifact(signature, &w.subject, w.serve("signed")))
			} else {
				w.list(w.subject)
			}
			out, _ := w.gather(policy.Rule{ArtifactTypes: tc.types, Depth: 1}, func(c *Config) { c.Cosign = tc.mode })
			for suffix, want := range tc.asked {
				n := 0
				for _, p := range w.server.Paths() {
					if strings.HasSuffix(p, suffix) {
						n++
					}
				}
				if n != want {
					t.Errorf("%s was asked for %d times, want %d", suffix, n, want)
				}
			}
			w.wantStatus(out, tc.status)
			if tc.asked[".sig"] == 0 {
				return
			}
			found := false
			for _, taken := range out.Subjects[0].Taken {
				found = found || taken.Digest == sig.Digest && taken.ArtifactType == artifact.TypeCosignSignature
			}
			if !found {
				t.Errorf("the signature was not taken as one: %+v", out.Subjects[0])
			}
		})
	}
}

func remoteManifest(w *world, desc ocispec.Descriptor) ([]byte, error) {
	return w.config(sboms).Repository.Manifest(w.ctx, desc)
}

// Progress closes all that it opens, whatever becomes of it: CRI waits for what
// is downloading.
func TestProgressIsClosed(t *testing.T) {
	w := newWorld(t)
	good := w.artifact(spdx, &w.subject, w.serve("good"))
	bad := w.serve("bad")
	w.server.On(base+"blobs/"+bad.Digest.String(), hostile.Answer{Body: []byte("b"), Announce: bad.Size})
	w.list(w.subject, good, w.artifact(spdx, &w.subject, bad))
	w.gather(sboms)
	last := map[string]string{}
	open := map[string]bool{}
	for _, e := range w.events {
		last[e.Name] = e.Event
		switch e.Event {
		case "downloading":
			open[e.Name] = e.Progress < e.Total
		case "complete":
			open[e.Name] = false
		}
	}
	failed := false
	for name, event := range last {
		if open[name] || event == "downloading" || event == "waiting" {
			t.Errorf("%s ends as %q", name, event)
		}
		failed = failed || event == "failed"
	}
	if !failed {
		t.Errorf("no event says that a blob failed: %v", last)
	}
}

// A blob that calls itself by the subject's name would make a circle of the tree
// that clients draw.
func TestProgressHasNoCircles(t *testing.T) {
	w := newWorld(t)
	w.list(w.subject, w.artifact(spdx, &w.subject, w.subject, w.serve("sbom")))
	w.gather(sboms)
	w.wantNoCircle()
}

// An image's index that refers to a manifest which it lists would make one as well, with
// what the image's own pull shows.
func TestProgressOfAnImageThatRefersToItself(t *testing.T) {
	w := newWorld(t)
	index := w.manifest(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: spdx,
		Manifests: []ocispec.Descriptor{artifact.Plain(w.subject)}, Subject: &w.subject,
	}, ocispec.MediaTypeImageIndex, spdx)
	w.list(index)
	w.list(w.subject, index)
	g := New(w.ctx, w.config(sboms))
	defer g.Close()
	g.Image(artifact.Plain(index))
	g.Image(w.subject, index.Digest)
	out := g.Wait(w.ctx)
	if err := g.Tie(w.ctx, out, artifact.Plain(index)); err != nil {
		t.Fatal(err)
	}
	w.wantTied(w.subject, index)
	w.events = append(w.events, transfer.Progress{
		Name: remotes.MakeRefKey(w.ctx, artifact.Plain(w.subject)), Parents: []string{remotes.MakeRefKey(w.ctx, artifact.Plain(index))},
	})
	w.wantNoCircle()
}

// wantNoCircle fails where something is shown beneath itself.
func (w *world) wantNoCircle() {
	w.t.Helper()
	parents := map[string][]string{}
	for _, e := range w.events {
		parents[e.Name] = append(parents[e.Name], e.Parents...)
	}
	var climb func(name string, depth int)
	climb = func(name string, depth int) {
		if depth > 10 {
			w.t.Fatalf("%s is its own parent: %v", name, parents)
		}
		for _, p := range parents[name] {
			climb(p, depth+1)
		}
	}
	for name := range parents {
		climb(name, 0)
	}
}

func TestClosedGatherLeavesNothing(t *testing.T) {
	w := newWorld(t)
	hung := w.serve("never comes")
	w.server.On(base+"blobs/"+hung.Digest.String(), hostile.Answer{Hang: true})
	w.list(w.subject, w.artifact(spdx, &w.subject, hung))
	config := w.config(sboms)
	g := New(w.ctx, config)
	g.Image(w.subject)
	for w.asked("/blobs/"+hung.Digest.String()) == 0 {
		if w.ctx.Err() != nil {
			t.Fatal("the blob was never asked for")
		}
	}
	g.Close()
	g.Close()
	w.wantNoIngest()
	g.Image(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("late"), Size: 1})
	if n := w.asked(digest.FromString("late").String()); n != 0 {
		t.Error("a gather that is closed goes on")
	}
}

// Subjects and referrers of another algorithm: through the fallback tag, whose
// length the specification limits, into the store and its labels.
func TestSHA512(t *testing.T) {
	w := newWorld(t)
	data := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[],"annotations":{"a":"b"}}`)
	w.subject = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.SHA512.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(w.ctx, w.store, "subject", bytes.NewReader(data), w.subject); err != nil {
		t.Fatal(err)
	}
	blob := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.SHA512.FromString("sbom"), Size: 4}
	w.server.On(base+"blobs/"+blob.Digest.String(), hostile.Content(blob.MediaType, []byte("sbom")))
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: spdx,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{blob}, Subject: &w.subject,
	})
	if err != nil {
		t.Fatal(err)
	}
	sbom := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: spdx, Digest: digest.SHA512.FromBytes(manifest), Size: int64(len(manifest))}
	w.server.On(base+"manifests/"+sbom.Digest.String(), hostile.Content(sbom.MediaType, manifest))
	w.server.On(base+"manifests/sha512-"+w.subject.Digest.Encoded()[:64], hostile.Index(sbom))
	out, _ := w.gather(sboms, func(c *Config) { c.Cosign = CosignAlways })
	w.wantTied(w.subject, sbom)
	w.wantStatus(out, labels.Present)
	if _, err := w.store.Info(w.ctx, blob.Digest); err != nil {
		t.Error(err)
	}
}

// What a page lists comes in while the next one is on its way: where that never
// comes, it is there, and no one is told that it is all.
func TestPagesDoNotWaitForEachOther(t *testing.T) {
	w := newWorld(t)
	sbom := w.artifact(spdx, &w.subject, w.serve("sbom"))
	path := base + "referrers/" + w.subject.Digest.String()
	w.server.On(path, hostile.Index(sbom).With("Link", `<`+path+`/next>; rel="next"`))
	w.server.On(path+"/next", hostile.Answer{Hang: true})
	out, _ := w.gatherWith(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1}, 1,
		func(c *Config) { c.Limits.Timeout = time.Millisecond })
	w.wantTied(w.subject, sbom)
	w.wantStatus(out, labels.Unknown)
}
