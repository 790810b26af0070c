package integration

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

type allFetched []struct {
	Image, Digest, Status, Result, Refused, Error string
	Fresh, Unselected                             bool
	Added, Withdrawn                              []string
}

func fetchAll(t *testing.T, d *daemon.Daemon, code int, flags ...string) map[string]int {
	t.Helper()
	r := referrers(t, d, append([]string{"fetch", "--all", "--jitter", "1ms", "--format", "json"}, flags...)...).want(t, code)
	var all allFetched
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	count := map[string]int{"images": len(all)}
	for _, i := range all {
		count["added"] += len(i.Added)
		count["withdrawn"] += len(i.Withdrawn)
		for what, is := range map[string]bool{"fresh": i.Fresh, "unselected": i.Unselected, "error": i.Error != "", "refused": i.Refused != "", "verified": i.Result == "verified", i.Status: true} {
			if is {
				count[what]++
			}
		}
	}
	return count
}

func wantCount(t *testing.T, got map[string]int, want map[string]int) {
	t.Helper()
	for what, n := range want {
		if got[what] != n {
			t.Errorf("%d %s, want %d, of %v", got[what], what, n, got)
		}
	}
}

// What was signed or withdrawn since is found out for all images at once, and what was asked about
// lately is left alone.
func TestFetchAll(t *testing.T) {
	key := sigstoretest.NewKey(t)
	reg, unruled := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	first, second, free := pushRuled(t, reg, "first"), pushRuled(t, reg, "second"), pushRuled(t, unruled, "free")
	withdrawn := signBundle(t, first, key).Digest
	d := startDaemon(t, active(trustedKeys(t, "ci", key.PEM)+strings.ReplaceAll(rule(`verify = "warn"`), `"**"`, `"`+reg.Host+`/**"`)+signedBy(`by = ["ci"]`)))
	for _, image := range []ruled{first, second, free} {
		pull(t, d, image.name)
	}
	runCtr(t, d, "images", "tag", first.name, first.reference()).want(t, 0)
	signBundle(t, second, key)
	if err := reg.DeleteManifest(testContext(t), "app", withdrawn); err != nil {
		t.Fatal(err)
	}
	reg.Reset()
	unruled.Reset()
	wantCount(t, fetchAll(t, d, 0, "--older-than", "1h"), map[string]int{"images": 3, "fresh": 2, "unselected": 1, "added": 0, "withdrawn": 0})
	if n := len(reg.Requests()) + len(unruled.Requests()); n > 0 {
		t.Errorf("%d requests for images that were asked about, or that no rule selects for", n)
	}
	wantCount(t, fetchAll(t, d, 0), map[string]int{"images": 3, "fresh": 0, "unselected": 1, "added": 1, "withdrawn": 1, "verified": 1, "error": 0})
	if n := reg.Count("/referrers/" + first.Digest.String()); n != 1 {
		t.Errorf("an image with two names in one repository is asked about %d times", n)
	}
	judged(t, d, first.name, exitRefused)
	judged(t, d, second.name, 0)
	for code, args := range map[int][][]string{
		exitUsage: {{"--all", first.name}, {"--all", "--user", "a:b"}, {"--all", "--max-concurrent", "17"}, {"--all", "--jitter", "-1s"}, {"--older-than", "1h", first.name}},
	} {
		for _, a := range args {
			referrers(t, d, append([]string{"fetch"}, a...)...).want(t, code)
		}
	}
	reg.Fail(registry.ReferrersFail(http.StatusForbidden))
	wantCount(t, fetchAll(t, d, exitUnknown), map[string]int{"unknown": 2, "withdrawn": 0})
	referrers(t, d, "fetch", "--all", "-q").want(t, exitUnknown, "of 3 images: of 2 it is not known in full")
	referrers(t, startDaemon(t, stock), "fetch", "--all").want(t, exitError, "nothing can be fetched: the referrers plugin is not active")
}

// A registry that asks to be left alone is, and then asked again; others are asked meanwhile.
func TestFetchAllRespectsRetryAfter(t *testing.T) {
	const pause = 4 * time.Second
	busy, other := startRegistry(t, registry.Olareg), startRegistry(t, registry.Olareg)
	first, second, third := pushRuled(t, busy, "first"), pushRuled(t, busy, "second"), pushRuled(t, other, "third")
	d := startDaemon(t, active("timeout = \"1s\"\n"+everything))
	for _, image := range []ruled{first, second, third} {
		pull(t, d, image.name)
	}
	var mu sync.Mutex
	var began time.Time
	var asked []time.Duration
	busy.Fail(func(w http.ResponseWriter, _ *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if began.IsZero() {
			began = time.Now()
		}
		since := time.Since(began)
		if asked = append(asked, since); since > pause {
			return false
		}
		w.Header().Set("Retry-After", "4")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	wantCount(t, fetchAll(t, d, 0, "--max-concurrent", "1"), map[string]int{"images": 3, "absent": 3, "error": 0})
	mu.Lock()
	defer mu.Unlock()
	early := 0
	for _, at := range asked {
		if at < pause-500*time.Millisecond {
			early++
		}
	}
	// Those of the one image that found out: its listing, and cosign's tags.
	if early == 0 || early > 4 || len(asked) == early {
		t.Errorf("of %d requests %d were made while the registry was to be left alone: %v", len(asked), early, asked)
	}
}
