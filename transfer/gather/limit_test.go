package gather

import (
	"maps"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// Every refusal is put down to the limit that it is of, and bytes are those that
// were written.
func TestRefusals(t *testing.T) {
	rule := policy.Rule{ArtifactTypes: []string{"all"}, Depth: 1}
	for _, tc := range []struct {
		name   string
		list   func(w *world)
		change func(*Config)
		want   map[outcome.Limit]int
	}{
		{name: "none", list: func(w *world) { w.list(w.subject, w.artifact(spdx, &w.subject, w.serve("sbom"))) }},
		{name: "a type that is not wanted is none", list: func(w *world) {
			w.list(w.subject, w.artifact("vex/openvex", &w.subject, w.serve("vex")))
		}},
		{name: "max_referrers", list: func(w *world) {
			w.list(w.subject, w.artifact(spdx, &w.subject, w.serve("a")), w.artifact(spdx, &w.subject, w.serve("b")), w.artifact(spdx, &w.subject, w.serve("c")))
		}, change: func(c *Config) { c.Limits.MaxReferrers = 1 }, want: map[outcome.Limit]int{outcome.LimitReferrers: 2}},
		{name: "max_referrers, where the manifest decides", list: func(w *world) {
			a, b := w.artifact(spdx, &w.subject, w.serve("a")), w.artifact(spdx, &w.subject, w.serve("b"))
			a.ArtifactType, b.ArtifactType = "", ""
			w.list(w.subject, a, b)
		}, change: func(c *Config) { c.Limits.MaxReferrers = 1 }, want: map[outcome.Limit]int{outcome.LimitReferrers: 1}},
		{name: "max_blob_size", list: func(w *world) {
			w.list(w.subject, w.artifact(spdx, &w.subject, w.serve("much too large")))
		}, change: func(c *Config) { c.Limits.MaxBlobSize = 3 }, want: map[outcome.Limit]int{outcome.LimitBlobSize: 1}},
		{name: "max_total_size", list: func(w *world) {
			w.list(w.subject, w.artifact(spdx, &w.subject, w.serve("much too large")))
		}, change: func(c *Config) { c.Limits.MaxTotalSize = 3 }, want: map[outcome.Limit]int{outcome.LimitTotalSize: 1}},
		{name: "timeout", list: func(w *world) {
			w.server.On(base+"referrers/"+w.subject.Digest.String(), hostile.Answer{Hang: true})
		}, change: func(c *Config) { c.Limits.Timeout = 1 }, want: map[outcome.Limit]int{outcome.LimitTimeout: 1}},
		{name: "manifest, by its size in the listing", list: func(w *world) {
			a := w.artifact(spdx, &w.subject, w.serve("a"))
			a.Size = registry.MaxListedSize + 1
			w.list(w.subject, a, w.artifact(spdx, &w.subject, w.serve("b")))
		}, want: map[outcome.Limit]int{outcome.LimitManifest: 1}},
		{name: "manifest, by its layers", list: func(w *world) {
			blobs := make([]ocispec.Descriptor, artifact.MaxDescriptors+1)
			for i := range blobs {
				blobs[i] = w.serve("a")
			}
			w.list(w.subject, w.artifact(spdx, &w.subject, blobs...))
		}, want: map[outcome.Limit]int{outcome.LimitManifest: 1}},
		{name: "manifest, by its nesting", list: func(w *world) {
			inner := w.artifact(spdx, nil, w.serve("a"))
			for range artifact.MaxNesting + 1 {
				index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
					ArtifactType: spdx, Subject: &w.subject, Manifests: []ocispec.Descriptor{inner}}
				inner = w.manifest(index, ocispec.MediaTypeImageIndex, spdx)
			}
			w.list(w.subject, inner)
		}, want: map[outcome.Limit]int{outcome.LimitManifest: 1}},
		{name: "listing", list: func(w *world) {
			entries := make([]ocispec.Descriptor, registry.MaxEntries+1)
			for i := range entries {
				entries[i] = w.subject
			}
			w.list(w.subject, entries...)
		}, want: map[outcome.Limit]int{outcome.LimitListing: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			tc.list(w)
			change := tc.change
			if change == nil {
				change = func(*Config) {}
			}
			of := rule
			if tc.want == nil {
				of.ArtifactTypes = []string{spdx}
			}
			out, _ := w.gather(of, change)
			if got := out.Refusals(); !maps.Equal(got, tc.want) {
				t.Errorf("refused %v, want %v: %s", got, tc.want, out.Subjects[0].Why)
			}
		})
	}
}

func TestOutcomeBytes(t *testing.T) {
	w := newWorld(t)
	referrer := w.artifact(spdx, &w.subject, w.serve("sbom"))
	w.list(w.subject, referrer)
	rule := policy.Rule{ArtifactTypes: []string{"all"}, Depth: 1}
	if out, _ := w.gather(rule); out.Bytes != referrer.Size+int64(len("sbom")+len("{}")) {
		t.Errorf("%d bytes, want those of manifest, config and blob", out.Bytes)
	}
	if out, _ := w.gather(rule); out.Bytes != 0 || len(out.Subjects[0].Taken) != 1 {
		t.Errorf("%d bytes and %d referrers, want what is stored to count as taken and as no bytes", out.Bytes, len(out.Subjects[0].Taken))
	}
}
