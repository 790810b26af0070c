package push

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// world is a store with an image, whose referrers have no blobs of their own, and a
// scripted registry that has everything unless it is told otherwise.
type world struct {
	t      *testing.T
	store  content.Store
	server *hostile.Server
	image  ocispec.Descriptor

	mu     sync.Mutex
	events []string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: storetest.New(t).ContentStore(), server: hostile.New(t)}
	w.image = w.put(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest})
	return w
}

func (w *world) put(m ocispec.Manifest) ocispec.Descriptor {
	w.t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	ctx := namespaces.WithNamespace(w.t.Context(), "test")
	if err := content.WriteBlob(ctx, w.store, desc.Digest.String(), strings.NewReader(string(data)), desc); err != nil {
		w.t.Fatal(err)
	}
	return desc
}

// referrer stores a referrer that says it refers to says, tied to the image.
func (w *world) referrer(n int, says *ocispec.Descriptor, own map[string]string) ocispec.Descriptor {
	w.t.Helper()
	desc := w.put(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example", Subject: says, Annotations: map[string]string{"n": fmt.Sprint(n)},
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{},
	})
	w.label(desc.Digest, own)
	info, err := w.store.Info(namespaces.WithNamespace(w.t.Context(), "test"), w.image.Digest)
	if err != nil {
		w.t.Fatal(err)
	}
	w.label(w.image.Digest, labels.TieLabels(info.Labels, desc.Digest))
	return desc
}

func (w *world) label(dgst digest.Digest, add map[string]string) {
	w.t.Helper()
	var fields []string
	for k := range add {
		fields = append(fields, "labels."+k)
	}
	if len(fields) == 0 {
		return
	}
	if _, err := w.store.Update(namespaces.WithNamespace(w.t.Context(), "test"), content.Info{Digest: dgst, Labels: add}, fields...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) push() (int, error) {
	w.t.Helper()
	spec, err := reference.Parse(w.server.Host() + "/test/app:v1")
	if err != nil {
		w.t.Fatal(err)
	}
	hosts := []docker.RegistryHost{w.server.RegistryHost(capabilities)}
	r, err := registry.New(spec, hosts, nil, registry.Limits{Attempts: 2, Backoff: time.Millisecond}).ForPush()
	if err != nil {
		w.t.Fatal(err)
	}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: func(string) ([]docker.RegistryHost, error) { return hosts, nil }})
	blobs, err := resolver.Pusher(w.t.Context(), spec.String())
	if err != nil {
		w.t.Fatal(err)
	}
	return Referrers(namespaces.WithNamespace(w.t.Context(), "test"), Config{
		Locks: &Locks{},
		Image: images.Image{Name: "image", Target: w.image}, Store: w.store, Repository: r, Blobs: blobs,
		Progress: func(p transfer.Progress) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, p.Event)
		},
	})
}

// blob stores the empty config that all referrers have.
func (w *world) blob() {
	w.t.Helper()
	empty := ocispec.DescriptorEmptyJSON
	if err := content.WriteBlob(namespaces.WithNamespace(w.t.Context(), "test"), w.store, "empty", strings.NewReader(string(empty.Data)), empty); err != nil {
		w.t.Fatal(err)
	}
	w.server.On("/v2/test/app/blobs/"+empty.Digest.String(), hostile.Status(http.StatusOK))
}

func (w *world) manifestPath(d ocispec.Descriptor) string {
	return "/v2/test/app/manifests/" + d.Digest.String()
}

func (w *world) requests() []string {
	var out []string
	for _, r := range w.server.Requests() {
		out = append(out, r.Method+" "+strings.TrimPrefix(r.Path, "/v2/test/app/"))
	}
	return out
}

func (w *world) wantNoWrites() {
	w.t.Helper()
	for _, r := range w.requests() {
		if !strings.HasPrefix(r, "GET ") && !strings.HasPrefix(r, "HEAD ") {
			w.t.Errorf("%s", r)
		}
	}
}

// A registry that names the subject in its answer lists by itself; one that names
// none, or another, has its fallback tag written, once for all that it lacks.
func TestWhoListsIsToldByTheAnswer(t *testing.T) {
	for _, tc := range []struct {
		name    string
		subject func(*world) string
		tag     bool
	}{
		{"named", func(w *world) string { return w.image.Digest.String() }, false},
		{"none", func(*world) string { return "" }, true},
		{"another", func(*world) string { return digest.FromString("another").String() }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.blob()
			var entries []ocispec.Descriptor
			for n := range 3 {
				d := w.referrer(n, &w.image, nil)
				w.server.On(w.manifestPath(d), hostile.Status(http.StatusNotFound), hostile.Status(http.StatusCreated).With(headerSubject, tc.subject(w)))
				d.ArtifactType, d.Annotations = "application/vnd.example", map[string]string{"n": fmt.Sprint(n)}
				entries = append(entries, d)
			}
			tag := "/v2/test/app/manifests/" + registry.FallbackTag(w.image.Digest)
			w.server.On(tag, hostile.Status(http.StatusNotFound), hostile.Status(http.StatusCreated), hostile.Index(entries...))
			if n, err := w.push(); err != nil || n != 3 {
				t.Fatalf("%d are carried: %v", n, err)
			}
			var written []ocispec.Index
			for _, r := range w.server.Requests() {
				if r.Method == http.MethodPut && r.Path == tag {
					var index ocispec.Index
					if err := json.Unmarshal(r.Body, &index); err != nil {
						t.Fatal(err)
					}
					written = append(written, index)
				}
			}
			if !tc.tag {
				if len(written) > 0 {
					t.Errorf("the tag was written: %v", written)
				}
				return
			}
			if len(written) != 1 {
				t.Fatalf("the tag was written %d times", len(written))
			}
			for _, e := range entries {
				if !slices.ContainsFunc(written[0].Manifests, func(d ocispec.Descriptor) bool {
					return d.Digest == e.Digest && d.Size == e.Size && d.MediaType == e.MediaType && d.ArtifactType == e.ArtifactType && d.Annotations["n"] == e.Annotations["n"]
				}) {
					t.Errorf("%v is not as it was in %v", e, written[0].Manifests)
				}
			}
			for n, e := range w.events {
				if e == "failed" {
					t.Errorf("event %d is %q", n, e)
				}
			}
		})
	}
}

// A manifest that is there and listed costs no write; one that is not listed is put
// again, to learn whose the listing is.
func TestWhatIsThereIsConfirmed(t *testing.T) {
	w := newWorld(t)
	there, unlisted := w.referrer(1, &w.image, nil), w.referrer(2, &w.image, nil)
	w.server.On(w.manifestPath(there), hostile.Status(http.StatusOK))
	w.server.On(w.manifestPath(unlisted), hostile.Status(http.StatusOK), hostile.Status(http.StatusCreated).With(headerSubject, w.image.Digest.String()))
	w.server.On("/v2/test/app/referrers/"+w.image.Digest.String(), hostile.Index(there))
	if n, err := w.push(); err != nil || n != 2 {
		t.Fatalf("%d are carried: %v", n, err)
	}
	got := slices.DeleteFunc(w.requests(), func(r string) bool { return !strings.HasPrefix(r, "PUT ") })
	if want := []string{"PUT manifests/" + unlisted.Digest.String()}; !slices.Equal(got, want) {
		t.Errorf("written: %q, want %q", got, want)
	}
}

// What labels tie but nothing else is left where it belongs to something else, and an
// error where no one could find it.
func TestWhatOnlyALabelTies(t *testing.T) {
	other := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 5}
	for _, tc := range []struct {
		name    string
		subject *ocispec.Descriptor
		own     map[string]string
		says    string
	}{
		{"another subject", &other, nil, ""},
		{"of another image's index", nil, map[string]string{labels.ArtifactTypeKey: artifact.TypeBuildKitAttestation}, ""},
		{"no subject", nil, nil, "its manifest names no subject"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			d := w.referrer(1, tc.subject, tc.own)
			n, err := w.push()
			if tc.says == "" && (err != nil || n != 0) {
				t.Errorf("%d are carried: %v", n, err)
			}
			if tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), d.Digest.String())) {
				t.Errorf("the error does not say %q of %s: %v", tc.says, d.Digest, err)
			}
			w.wantNoWrites()
		})
	}
}

// A registry whose answer is neither yes nor no is not written to.
func TestOddAnswersOfTheManifest(t *testing.T) {
	for _, answer := range []hostile.Answer{
		hostile.Status(http.StatusInternalServerError), hostile.Status(http.StatusForbidden), hostile.Status(http.StatusUnauthorized),
		{Drop: true}, hostile.Status(http.StatusMovedPermanently).With("Location", "http://127.0.0.1:1/x"),
	} {
		w := newWorld(t)
		w.blob()
		d := w.referrer(1, &w.image, nil)
		w.server.On(w.manifestPath(d), answer)
		if _, err := w.push(); err == nil || !strings.Contains(err.Error(), "referrer "+d.Digest.String()) || !strings.Contains(err.Error(), "subject "+w.image.Digest.String()) {
			t.Errorf("%d: %v", answer.Code, err)
		}
		w.wantNoWrites()
		if last := w.events[len(w.events)-1]; last != "failed" {
			t.Errorf("the last event is %q", last)
		}
	}
}

// A cosign tag that holds all of ours and more is left, without an error.
func TestCosignTagThatHoldsMore(t *testing.T) {
	layer := func(n int) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":%q,"size":5,"annotations":{"dev.cosignproject.cosign/signature":"%d"}}`, digest.FromString("payload"), n)
	}
	manifest := func(layers ...string) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[%s]}`, digest.FromString("{}"), strings.Join(layers, ", "))
	}
	for _, tc := range []struct {
		theirs []byte
		want   bool
	}{
		{manifest(layer(2), layer(1)), true},
		{manifest(layer(1)), true},
		{manifest(layer(2)), false}, // the same payload, signed by another
		{manifest(), false},
		{[]byte(`{}`), false},
	} {
		if got := holdsAll(tc.theirs, manifest(layer(1))); got != tc.want {
			t.Errorf("%s holds all: %v", tc.theirs, got)
		}
	}
	if holdsAll(manifest(), manifest()) {
		t.Error("nothing holds nothing")
	}
}
