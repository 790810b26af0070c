package policy

import (
	"fmt"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// BenchmarkSelect finds the last of so many rules.
func BenchmarkSelect(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		var rules []Rule
		for i := range n {
			rules = append(rules, Rule{Repositories: []string{fmt.Sprintf("registry.example.com/team-%d/**", i)}, ArtifactTypes: []string{artifact.SetSignatures}})
		}
		p, err := New(rules)
		if err != nil {
			b.Fatal(err)
		}
		repository := fmt.Sprintf("registry.example.com/team-%d/app", n-1)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if s, err := p.Select(repository, nil); err != nil || s.Empty() {
					b.Fatal(s, err)
				}
			}
		})
	}
}

// BenchmarkDecide judges a listing of so many referrers, most of which are not wanted.
func BenchmarkDecide(b *testing.B) {
	p, err := New([]Rule{{Repositories: []string{"**"}, ArtifactTypes: []string{artifact.SetSignatures, artifact.SetSBOMs, "application/vnd.example.*", "!application/vnd.example.not"}}})
	if err != nil {
		b.Fatal(err)
	}
	s, err := p.Select("registry.example.com/app", nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i := range n {
					artifactType := "application/vnd.other"
					if i%10 == 0 {
						artifactType = "application/vnd.example.report"
					}
					s.Decide(artifact.Referrer{ArtifactType: artifactType})
				}
			}
		})
	}
}
