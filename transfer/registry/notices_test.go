package registry

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// What an operator can mend is told once for each host, however often it is met.
func TestHostsAreWarnedAboutOnce(t *testing.T) {
	for _, tc := range []struct {
		name, warning string
		script        func(*hostile.Server)
	}{
		{"a mirror that does not declare referrers", "the mirror is asked although its capabilities", answering(hostile.Index())},
		{"an endpoint that answers 405", "is taken to mean that it has no referrers endpoint", missing(405)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mirror, upstream := hostile.New(t), hostile.New(t)
			tc.script(mirror)
			upstream.On(api, hostile.Index())
			logger := logrus.New()
			var out bytes.Buffer
			logger.SetOutput(&out)
			ctx := log.WithLogger(t.Context(), logrus.NewEntry(logger))
			var told Notices
			for range 3 {
				r := repositoryAt(t, upstream.Host(), twice, mirror.RegistryHost(pullResolve), upstream.RegistryHost(byDefault))
				r.notices = &told
				if _, err := r.List(ctx, subject); err != nil {
					t.Fatal(err)
				}
			}
			if n := strings.Count(out.String(), tc.warning); n != 1 {
				t.Errorf("%d warnings, want 1:\n%s", n, out.String())
			}
			if !strings.Contains(out.String(), "level=warning") || !strings.Contains(out.String(), mirror.Host()) {
				t.Errorf("not a warning that names the host: %s", out.String())
			}
		})
	}
}

// Any client may name any number of registries: what was told of the oldest is forgotten.
func TestNoticesAreBounded(t *testing.T) {
	var n Notices
	if !n.first(aboutCapability, "kept.test") || !n.first(aboutEndpoint, "kept.test") {
		t.Error("one notice stands for another")
	}
	for i := range 2 * maxNotices {
		if !n.first(aboutCapability, fmt.Sprint(i, ".test")) {
			t.Fatalf("notice %d was told already", i)
		}
		if n.first(aboutCapability, "kept.test") {
			t.Fatalf("what is met again and again is forgotten after %d others", i)
		}
	}
	if len(n.told) != maxNotices || n.recent.Len() != maxNotices {
		t.Errorf("%d notices are remembered in order and %d in all, want %d", n.recent.Len(), len(n.told), maxNotices)
	}
	if !n.first(aboutEndpoint, "kept.test") {
		t.Error("the oldest is remembered")
	}
}
