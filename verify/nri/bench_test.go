//go:build linux

package nri

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/events/exchange"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

const repository = "registry.example.com/prod/app"

// shelf is a store of images, on a disk.
type shelf struct {
	tb     testing.TB
	ctx    context.Context
	store  content.Store
	images images.Store
	events *exchange.Exchange
	trust  string // a file
	key    *sigstoretest.Key
	put    int
}

func newShelf(tb testing.TB) *shelf {
	tb.Helper()
	_ = log.SetLevel("error") // the store warns of every temporary directory
	dir := tb.TempDir()
	backend, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		tb.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	bus := exchange.NewExchange()
	m := metadata.NewDB(db, backend, nil, metadata.WithEventsPublisher(bus))
	if err := m.Init(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	s := &shelf{tb: tb, events: bus, ctx: namespaces.WithNamespace(tb.Context(), namespace), store: m.ContentStore(), images: metadata.NewImageStore(m), trust: filepath.Join(dir, "key.pub"), key: sigstoretest.NewKey(tb)}
	s.trusts(s.key)
	return s
}

// trusts replaces the key that is trusted.
func (s *shelf) trusts(key *sigstoretest.Key) {
	s.tb.Helper()
	if err := os.WriteFile(s.trust+".new", key.PEM, 0o600); err != nil {
		s.tb.Fatal(err)
	}
	if err := os.Rename(s.trust+".new", s.trust); err != nil {
		s.tb.Fatal(err)
	}
}

// gate is one with a rule for the repository.
func (s *shelf) gate(mode gate.Mode) *gate.Gate {
	s.tb.Helper()
	return s.open(mode, nil)
}

func (s *shelf) observed(o gate.Observer) *gate.Gate {
	s.tb.Helper()
	return s.open(gate.Enforce, o)
}

func (s *shelf) open(mode gate.Mode, o gate.Observer) *gate.Gate {
	s.tb.Helper()
	trusts, err := trust.Open(map[string]trust.Config{"ci": {Keys: []string{s.trust}}}, &sigstore.Loader{})
	if err != nil {
		s.tb.Fatal(err)
	}
	p, err := policy.New([]policy.Rule{{Repositories: []string{repository}, Verify: policy.VerifyEnforce, Signed: []policy.Signed{{By: []string{"ci"}}}}})
	if err != nil {
		s.tb.Fatal(err)
	}
	g := gate.New(gate.Config{Mode: mode, Policy: p, Judge: judge.New(trusts, nil), Images: s.images, Store: s.store, Observer: o})
	g.Watch(s.events.Subscribe(s.ctx, gate.ImageEvents))
	return g
}

func (s *shelf) blob(mediaType string, data []byte) ocispec.Descriptor {
	s.tb.Helper()
	s.put++
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(s.ctx, s.store, fmt.Sprint(s.put), strings.NewReader(string(data)), desc); err != nil && !errdefs.IsAlreadyExists(err) {
		s.tb.Fatal(err)
	}
	return desc
}

func (s *shelf) manifest(mediaType string, v any) ocispec.Descriptor {
	s.tb.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		s.tb.Fatal(err)
	}
	return s.blob(mediaType, data)
}

// add stores an image of one platform under a name, and returns it as CRI names it.
func (s *shelf) add(name string) (gate.Image, ocispec.Descriptor) {
	s.tb.Helper()
	config := s.blob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","author":"`+name+`"}`))
	m := s.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config})
	m.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	index := s.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{m}})
	if _, err := s.images.Create(s.ctx, images.Image{Name: name, Target: index}); err != nil {
		s.tb.Fatal(err)
	}
	return gate.Image{Name: name, Digest: index.Digest, Config: config.Digest}, index
}

// sign stores a signature by a key, and ties it to its subject.
func (s *shelf) sign(subject ocispec.Descriptor, key *sigstoretest.Key) {
	s.tb.Helper()
	about := ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	desc := s.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: sigstoretest.BundleMediaType, Subject: &about,
		Config: s.blob(ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Layers: []ocispec.Descriptor{s.blob(sigstoretest.BundleMediaType, key.Signature(s.tb, subject.Digest))},
	})
	info, err := s.store.Info(s.ctx, subject.Digest)
	if err != nil {
		s.tb.Fatal(err)
	}
	tied := maps.Clone(info.Labels)
	if tied == nil {
		tied = map[string]string{}
	}
	maps.Copy(tied, labels.TieLabels(tied, desc.Digest))
	info.Labels = tied
	if _, err := s.store.Update(s.ctx, info, "labels"); err != nil {
		s.tb.Fatal(err)
	}
}

// BenchmarkCreation is what judging adds to a container's creation, with images stored and
// signatures of the one that runs.
func BenchmarkCreation(b *testing.B) {
	for _, size := range []struct{ images, signatures int }{{10, 1}, {100, 1}, {1000, 1}, {1000, 100}} {
		s := newShelf(b)
		image, index := s.add(repository + ":v1")
		for range size.signatures {
			s.sign(index, s.key)
		}
		for i := range size.images - 1 {
			s.add(fmt.Sprintf("registry.example.com/team/app%d:v1", i))
		}
		judges := func(b *testing.B, g *gate.Gate) {
			b.Helper()
			if err := g.Judge(s.ctx, image); err != nil {
				b.Fatal(err)
			}
		}
		name := fmt.Sprintf("images=%d/signatures=%d/", size.images, size.signatures)
		b.Run(name+"warm", func(b *testing.B) {
			g := s.gate(gate.Enforce)
			judges(b, g)
			for b.Loop() {
				judges(b, g)
			}
		})
		b.Run(name+"cold", func(b *testing.B) { // the evidence is examined
			for b.Loop() {
				b.StopTimer()
				g := s.gate(gate.Enforce)
				g.Prepare(s.ctx)
				b.StartTimer()
				judges(b, g)
			}
		})
		b.Run(name+"changed", func(b *testing.B) { // a record of some image was written
			g := s.gate(gate.Enforce)
			judges(b, g)
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				label := map[string]string{"n": fmt.Sprint(i)}
				if _, err := s.images.Update(s.ctx, images.Image{Name: image.Name, Target: index, Labels: label}, "labels.n"); err != nil {
					b.Fatal(err)
				}
				time.Sleep(time.Millisecond) // for the event
				b.StartTimer()
				judges(b, g)
			}
		})
		b.Run(name+"refused", func(b *testing.B) { // all evidence is examined, in vain
			s.trusts(sigstoretest.NewKey(b))
			defer s.trusts(s.key)
			for b.Loop() {
				b.StopTimer()
				g := s.gate(gate.Enforce)
				g.Prepare(s.ctx)
				b.StartTimer()
				if g.Judge(s.ctx, image) == nil {
					b.Fatal("it is not refused")
				}
			}
		})
		b.Run(name+"first", func(b *testing.B) { // before the gate has read what images hold
			for b.Loop() {
				b.StopTimer()
				g := s.gate(gate.Enforce)
				b.StartTimer()
				judges(b, g)
			}
		})
	}
}

// BenchmarkNRI is a creation as NRI sees it: with the gate, and without.
func BenchmarkNRI(b *testing.B) {
	s := newShelf(b)
	image, index := s.add(repository + ":v1")
	s.sign(index, s.key)
	for _, gated := range []bool{false, true} {
		b.Run(fmt.Sprintf("gate=%t", gated), func(b *testing.B) {
			r := startNRI(b)
			if gated {
				startGate(b, s.gate(gate.Enforce), r.socket)
				r.want(b, image, "")
			}
			for b.Loop() {
				if err := r.create("c", image); (err == nil) != gated { // its validator asks for the gate
					b.Fatal(err)
				}
			}
		})
	}
}
