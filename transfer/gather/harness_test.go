package gather

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

const (
	spdx      = "application/spdx+json"
	signature = "application/vnd.cncf.notary.signature"
	base      = "/v2/app/"
)

// world is a scripted registry with a subject, and a real content store.
type world struct {
	t       testing.TB
	dir     string // of the store
	server  *hostile.Server
	db      *metadata.DB
	store   content.Store
	labeler *stored.Labeler
	ctx     context.Context
	subject ocispec.Descriptor

	mu     sync.Mutex
	events []transfer.Progress
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	db := storetest.NewAt(t, dir)
	ctx := storetest.Leased(namespaces.WithNamespace(t.Context(), "test"), t, db)
	w := &world{t: t, dir: dir, server: hostile.New(t), db: db, store: db.ContentStore(), labeler: stored.NewLabeler(db.ContentStore()), ctx: ctx}
	w.labeler.SetTransaction(storetest.Transaction(db))
	w.subject = w.put([]byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[]}`))
	return w
}

// put stores content, as the image's own pull does.
func (w *world) put(data []byte) ocispec.Descriptor {
	w.t.Helper()
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(w.ctx, w.store, desc.Digest.String(), strings.NewReader(string(data)), desc); err != nil {
		w.t.Fatal(err)
	}
	return desc
}

// serve has the registry serve a blob.
func (w *world) serve(data string) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromString(data), Size: int64(len(data))}
	w.server.On(base+"blobs/"+desc.Digest.String(), hostile.Content(desc.MediaType, []byte(data)))
	return desc
}

// artifact has the registry serve a manifest with the blobs, and returns its
// descriptor as an honest listing shows it.
func (w *world) artifact(artifactType string, subject *ocispec.Descriptor, blobs ...ocispec.Descriptor) ocispec.Descriptor {
	return w.manifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType, Config: ocispec.DescriptorEmptyJSON, Layers: blobs, Subject: subject,
	}, ocispec.MediaTypeImageManifest, artifactType)
}

func (w *world) manifest(m any, mediaType, artifactType string) ocispec.Descriptor {
	data, err := json.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, ArtifactType: artifactType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	w.server.On(base+"manifests/"+desc.Digest.String(), hostile.Content(mediaType, data))
	return desc
}

// list has the registry list the referrers of the subject.
func (w *world) list(subject ocispec.Descriptor, referrers ...ocispec.Descriptor) {
	w.server.On(base+"referrers/"+subject.Digest.String(), hostile.Index(referrers...))
}

// config is that of a pull which the rule governs.
func (w *world) config(rule policy.Rule) Config {
	w.t.Helper()
	rule.Repositories = []string{"**"}
	p, err := policy.New([]policy.Rule{rule})
	if err != nil {
		w.t.Fatal(err)
	}
	ref := w.server.Host() + "/app:v1"
	spec, err := reference.Parse(ref)
	if err != nil {
		w.t.Fatal(err)
	}
	sel, err := p.Select(spec.Locator, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	host := w.server.RegistryHost(docker.HostCapabilityPull | docker.HostCapabilityResolve)
	return Config{
		Name: ref,
		Repository: registry.New(spec, []docker.RegistryHost{host}, nil,
			registry.Limits{Attempts: 2, Backoff: time.Millisecond}),
		Store: w.store, Labeler: w.labeler, Selection: sel, Limits: DefaultLimits, Cosign: CosignNever,
		Progress: func(p transfer.Progress) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, p)
		},
	}
}

// gather takes what the rule says of the subject.
func (w *world) gather(rule policy.Rule, change ...func(*Config)) (*outcome.Outcome, *policy.Selection) {
	w.t.Helper()
	return w.gatherWith(rule, 0, change...)
}

// gatherWith does so for an image that is complete when so many of its referrers are,
// and never before, however slow the machine is.
func (w *world) gatherWith(rule policy.Rule, taken int, change ...func(*Config)) (*outcome.Outcome, *policy.Selection) {
	w.t.Helper()
	config := w.config(rule)
	for _, c := range change {
		c(&config)
	}
	g := New(w.ctx, config)
	defer g.Close()
	g.Image(w.subject)
	g.mu.Lock()
	s := g.subjects[0]
	g.mu.Unlock()
	w.awaitTaken(s, taken)
	out := g.Wait(w.ctx)
	if err := g.Tie(w.ctx, out, w.subject); err != nil {
		w.t.Fatal(err)
	}
	w.wantNoIngest()
	return out, config.Selection
}

// awaitTaken waits until so many referrers of the subject are taken.
func (w *world) awaitTaken(s *subject, taken int) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.taken)
		s.mu.Unlock()
		if n >= taken {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d referrers came in a minute, want %d", n, taken)
		}
	}
}

func (w *world) wantNoIngest() {
	w.t.Helper()
	statuses, err := w.store.ListStatuses(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range statuses {
		w.t.Errorf("ingest %s is left", s.Ref)
	}
}

// tied returns what the labels tie to the subject.
func (w *world) tied(subject ocispec.Descriptor) []digest.Digest {
	w.t.Helper()
	info, err := w.store.Info(w.ctx, subject.Digest)
	if err != nil {
		w.t.Fatal(err)
	}
	return labels.Referrers(info.Labels)
}

func (w *world) wantTied(subject ocispec.Descriptor, referrers ...ocispec.Descriptor) {
	w.t.Helper()
	var want []digest.Digest
	for _, r := range referrers {
		want = append(want, r.Digest)
	}
	slices.Sort(want)
	if got := w.tied(subject); !slices.Equal(got, want) {
		w.t.Errorf("tied to %s:\n got %v\nwant %v", subject.Digest, got, want)
	}
}

func (w *world) wantStatus(out *outcome.Outcome, want labels.Status) {
	w.t.Helper()
	if got := out.Subjects[0].Status; got != want {
		w.t.Errorf("status is %q, want %q: %s", got, want, out.Subjects[0].Why)
	}
	info, err := w.store.Info(w.ctx, w.subject.Digest)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := info.Labels[labels.StatusKey]; got != string(want) {
		w.t.Errorf("the label says %q, want %q", got, want)
	}
}

// asked counts the requests whose path has the substring.
func (w *world) asked(substring string) int {
	n := 0
	for _, p := range w.server.Paths() {
		if strings.Contains(p, substring) {
			n++
		}
	}
	return n
}
