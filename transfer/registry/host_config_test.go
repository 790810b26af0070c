package registry

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker/config"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// What is remembered of a registry for all sessions ends with the configuration that it was learnt under: there
// may be another host behind it now.
func TestMemoryEndsWithItsConfiguration(t *testing.T) {
	for name, tc := range map[string]struct {
		script func(*hostile.Server)
		// used reports whether the first of the requests shows that memory was used.
		used func([]hostile.Request) bool
	}{
		"capability": {
			missing(405, hostile.Index(entry(1))),
			func(asked []hostile.Request) bool { return asked[0].Path == tag },
		},
		"answer": {
			answering(hostile.Index(entry(1)).With("ETag", `"one"`)),
			func(asked []hostile.Request) bool { return asked[0].Header.Get("If-None-Match") != "" },
		},
	} {
		for change, ends := range map[string]bool{"nothing": false, "hosts.toml": true, "ca.pem": true, "x.key": true} {
			t.Run(name+", "+change, func(t *testing.T) {
				s := hostile.NewTLS(t)
				tc.script(s)
				dir := t.TempDir()
				appendTo(t, filepath.Join(dir, "ca.pem"), string(s.Certificate()))
				appendTo(t, filepath.Join(dir, "hosts.toml"), fmt.Sprintf("server = %q\nca = \"ca.pem\"\n", s.URL()))
				var sessions Sessions
				t.Cleanup(sessions.Close)
				var capabilities Capabilities
				var answers AnswerCache
				list := func() []hostile.Request {
					t.Helper()
					before := len(s.Requests())
					c := NewClient(t.Context(), config.HostOptions{HostDir: func(string) (string, error) { return dir, nil }})
					c.UseSessions(&sessions)
					r, err := c.Repository(s.Host()+"/test/app:v1", nil, twice)
					if err != nil {
						t.Fatal(err)
					}
					r.SetCapabilities(&capabilities)
					r.SetAnswers(&answers)
					if l, err := r.List(t.Context(), subject); err != nil || len(l.Referrers) != 1 {
						t.Fatalf("%+v, %v", l.Answers, err)
					}
					return s.Requests()[before:]
				}
				if tc.used(list()) {
					t.Error("something was remembered before the first pull")
				}
				if !tc.used(list()) {
					t.Error("nothing was remembered for the second pull")
				}
				if change != "nothing" {
					appendTo(t, filepath.Join(dir, change), "\n")
				}
				if got := tc.used(list()); got == ends {
					t.Errorf("after a change of %s, what was remembered is used: %t", change, got)
				}
				if !tc.used(list()) {
					t.Error("nothing is remembered under the new configuration")
				}
			})
		}
	}
}
