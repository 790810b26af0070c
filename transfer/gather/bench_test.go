package gather

import (
	"fmt"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// BenchmarkGather brings in referrers with a blob each, from a registry on loopback
// into a real store. Its time and memory must grow as their number does.
func BenchmarkGather(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				w := newWorld(b)
				var listed []ocispec.Descriptor
				for i := range n {
					listed = append(listed, w.artifact(spdx, &w.subject, w.serve(fmt.Sprint("blob ", i))))
				}
				w.list(w.subject, listed...)
				config := w.config(policy.Rule{ArtifactTypes: []string{artifact.SetSBOMs}, Depth: 1})
				config.Limits.MaxReferrers, config.Limits.Timeout, config.Progress = n, 10*time.Minute, nil
				b.StartTimer()
				g := New(w.ctx, config)
				g.Image(w.subject)
				out := g.Wait(w.ctx)
				if err := g.Tie(w.ctx, out, w.subject); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if taken := len(out.Subjects[0].Taken); taken != n {
					b.Fatalf("%d taken, want %d: %s", taken, n, out.Subjects[0].Why)
				}
				g.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/referrer")
		})
	}
}
