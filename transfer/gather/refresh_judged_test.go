package gather

import (
	"fmt"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// at has the pull ask the servers, the last of them the registry of the name.
func (w *world) at(name string, servers ...*hostile.Server) func(*Config) {
	return func(c *Config) {
		spec, err := reference.Parse(name)
		if err != nil {
			w.t.Fatal(err)
		}
		var hosts []docker.RegistryHost
		for _, s := range servers {
			hosts = append(hosts, s.RegistryHost(docker.HostCapabilityPull|docker.HostCapabilityResolve))
		}
		c.Name = name
		c.Repository = registry.New(spec, hosts, nil, registry.Limits{Attempts: 2, Backoff: time.Millisecond})
	}
}

func (w *world) wantUntouched(referrers ...ocispec.Descriptor) {
	w.t.Helper()
	w.wantTied(w.subject, referrers...)
	for _, r := range referrers {
		if since := w.unlisted(r); !since.IsZero() {
			w.t.Errorf("%s is marked as no longer listed since %s", r.Digest, since)
		}
	}
}

// What is asked may be out of date before it is used: a pull that listed nothing
// ends after one that has found a new referrer.
func TestRefreshAfterAnotherPull(t *testing.T) {
	for _, prune := range []bool{false, true} {
		w := newWorld(t)
		rule := sboms
		rule.Prune = prune
		w.list(w.subject)
		first := New(w.ctx, w.config(rule))
		defer first.Close()
		first.Image(w.subject)
		old := first.Wait(w.ctx)
		sbom := w.artifact(spdx, &w.subject, w.serve("late"))
		w.list(w.subject, sbom)
		out, _ := w.gather(rule)
		if err := first.Tie(w.ctx, old, w.subject); err != nil {
			t.Fatal(err)
		}
		w.wantUntouched(sbom)
		w.wantStatus(out, labels.Present)
	}
}

// A mirror may lag behind the registry, or hold a part of what that lists.
func TestRefreshFromAMirrorThatLags(t *testing.T) {
	for _, prune := range []bool{false, true} {
		w := newWorld(t)
		rule := sboms
		rule.Prune = prune
		a, b := w.artifact(spdx, &w.subject, w.serve("a")), w.artifact(spdx, &w.subject, w.serve("b"))
		w.list(w.subject, a, b)
		w.gather(rule)
		mirror := hostile.New(t)
		mirror.On(base+"referrers/"+w.subject.Digest.String(), hostile.Index(a))
		w.gather(rule, w.at(w.server.Host()+"/app:v1", mirror, w.server))
		w.wantUntouched(a, b)
	}
}

// The same host name with another port is another registry.
func TestRefreshFromAnotherPort(t *testing.T) {
	w := newWorld(t)
	a := w.artifact(spdx, &w.subject, w.serve("a"))
	w.list(w.subject, a)
	w.gather(pruning)
	other := hostile.New(t)
	other.On(base+"referrers/"+w.subject.Digest.String(), hostile.Index())
	w.gather(pruning, w.at(other.Host()+"/app:v1", other))
	w.wantUntouched(a)
}

// A registry whose referrers come and go fills no disk: of those that it no longer
// lists the ones missed last are kept, as many as a subject may have.
func TestRefreshKeepsNoMoreThanTheLimit(t *testing.T) {
	w := newWorld(t)
	const most = 3
	limit := func(c *Config) { c.Limits.MaxReferrers = most }
	var all []ocispec.Descriptor
	for i := range 5 {
		sbom := w.artifact(spdx, &w.subject, w.serve(fmt.Sprint("day ", i)))
		w.list(w.subject, sbom)
		w.gather(sboms, limit)
		for _, old := range all { // a day passes
			if since := w.unlisted(old); !since.IsZero() {
				w.label(w.subject, labels.Unlisted(old.Digest), since.Add(-24*time.Hour).Format(time.RFC3339))
			}
		}
		all = append(all, sbom)
	}
	w.wantTied(w.subject, all[1:]...)
}
