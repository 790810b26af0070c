package integration

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

func explained(t *testing.T, d *daemon.Daemon, args ...string) *explain.Explanation {
	t.Helper()
	out, err := d.Ctr(testContext(t), append([]string{"referrers", "explain", "--plain-http", "--platform", "linux/amd64", "--format", "json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	e := &explain.Explanation{}
	if err := json.Unmarshal([]byte(out), e); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return e
}

// Explain says of every referrer whether a pull would take it, by which rule and
// pattern, and stores nothing. What it says a pull does.
func TestExplain(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg, registry.WithToken("user", "secret"))
	wholeFixture(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(rule(`artifact_types = ["signatures", "sboms", "!application/vnd.cncf.*"]`, "depth = 1")))

	e := explained(t, d, "-u", "user:secret", image)
	if n := len(contents(t, d)); n != 0 {
		t.Errorf("%d blobs are stored", n)
	}
	wantClean(t, d)
	if e.Digest != f.Get(fixture.Image).Digest || !strings.HasPrefix(e.Rule, "rule 1, ") || e.Refused != "" || e.Stored {
		t.Errorf("explained is %+v", e)
	}
	if e.CosignTags != "auto" || e.Limits.Timeout != "30s" || e.Limits.MaxBlobSize != 32<<20 {
		t.Errorf("in force are %+v, cosign_tags %q", e.Limits, e.CosignTags)
	}
	taken, left := map[string]string{}, map[string]string{}
	for _, s := range e.Subjects {
		if s.Status != labels.Present || len(s.Answers) == 0 || s.Answers[0].Host != reg.Host || s.Answers[0].Code != 200 || s.Answers[0].Via != outcome.EndpointReferrers || s.Answers[0].Mirror {
			t.Errorf("subject %s: %+v", f.Name(s.Digest), s)
		}
		for _, r := range s.Taken {
			taken[f.Name(r.Digest)] = r.Reason
			if r.Via == "" || r.Stored {
				t.Errorf("taken is %+v", r)
			}
		}
		for _, r := range s.Skipped {
			left[f.Name(r.Digest)] = r.Reason
		}
	}
	for name, why := range map[string]string{fixture.CosignSignature: `artifact type "signatures"`, fixture.SBOM: `artifact type "sboms"`} {
		if !strings.Contains(taken[name], why) || !strings.Contains(taken[name], "rule 1") {
			t.Errorf("%s is taken because %q, want %q", name, taken[name], why)
		}
	}
	for name, why := range map[string]string{
		fixture.Notation: `denied by "!application/vnd.cncf.*"`, fixture.CosignSBOM: "is not among its artifact types", fixture.VEX: "is not among",
	} {
		if !strings.Contains(left[name], why) {
			t.Errorf("%s is left because %q, want %q", name, left[name], why)
		}
	}

	pull(t, d, image, "--plain-http", "-u", "user:secret")
	stored := map[string]bool{}
	for _, r := range ls(t, d, image).Referrers {
		stored[f.Name(r.Digest)] = true
	}
	if len(stored) != len(taken) {
		t.Errorf("the pull stored %v, explained was %v", stored, taken)
	}
	for name := range taken {
		if !stored[name] {
			t.Errorf("%s was explained as taken, and is not stored", name)
		}
	}
	// Of an image that is stored it is the stored digest that is explained.
	e = explained(t, d, "-u", "user:secret", image)
	if e.Digest != f.Get(fixture.Image).Digest || !e.Stored {
		t.Errorf("explained is %s, stored %t", e.Digest, e.Stored)
	}
	var used []outcome.MemoryKind
	for _, m := range e.Memory {
		if m.Host != reg.Host || !strings.HasSuffix(m.Age, "s") {
			t.Errorf("remembered is %+v", m)
		}
		used = append(used, m.Kind)
	}
	if want := []outcome.MemoryKind{outcome.MemoryChallenge, outcome.MemoryConnection, outcome.MemoryToken}; !slices.Equal(used, want) {
		t.Errorf("remembered are %v, want %v", used, want)
	}
	for _, s := range e.Subjects {
		for _, r := range s.Taken {
			if !s.Stored || !r.Stored {
				t.Errorf("after the pull, of subject %s taken is %+v", f.Name(s.Digest), r)
			}
		}
		for _, r := range s.Skipped {
			if r.Stored {
				t.Errorf("after the pull, of subject %s left is %+v", f.Name(s.Digest), r)
			}
		}
	}
	out, err := d.Ctr(testContext(t), "referrers", "explain", "--plain-http", "--platform", "linux/amd64", "-u", "user:secret", "--artifact-type", "vex/openvex", image)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"takes [vex/openvex]", "limits: timeout 30s, max_referrers 100, max_blob_size 32MiB, max_total_size 128MiB, max_concurrent_downloads 3; cosign_tags auto\n", "asked " + reg.Host + ": referrers: present (HTTP 200)", "take  " + f.Get(fixture.VEX).Digest.String(), "a pull would succeed"} {
		if !strings.Contains(out, text) {
			t.Errorf("the text lacks %q:\n%s", text, out)
		}
	}
}

// Of a registry that an earlier pull learnt to have no referrers API, explain says so, and how long ago.
func TestExplainMemoryOfACapability(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Distribution)
	if err := f.Push(testContext(t), reg, "app", "v1"); err != nil {
		t.Fatal(err)
	}
	listUnderTag(t, f, reg, "app", fixture.AMD64, fixture.SBOM)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(everything))
	pull(t, d, image, "--plain-http")
	reg.Reset()
	var found []outcome.Memory
	for _, m := range explained(t, d, image).Memory {
		if m.Kind == outcome.MemoryCapability {
			found = append(found, m)
		}
	}
	if len(found) != 1 || found[0].Host != reg.Host || !strings.HasSuffix(found[0].Age, "s") {
		t.Errorf("remembered is %+v, want the host and an age", found)
	}
	if n := reg.Count("/referrers/"); n != 0 {
		t.Errorf("the endpoint was asked %d times: %v", n, reg.Requests())
	}
	out, err := d.Ctr(testContext(t), "referrers", "explain", "--plain-http", "--platform", "linux/amd64", image)
	if err != nil || !strings.Contains(out, "capability") {
		t.Errorf("the text does not name the capability: %v\n%s", err, out)
	}
}

// Explain says why a pull would fail, and what each host answered.
func TestExplainRefusal(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	reg.Fail(registry.ReferrersFail(403))
	d := startDaemon(t, active(rule(`required = ["signatures"]`)))
	e := explained(t, d, reg.Host+"/app:v1")
	for _, text := range []string{"lacks referrers", "signatures", "HTTP 403"} {
		if !strings.Contains(e.Refused, text) {
			t.Errorf("refused is %q, lacks %q", e.Refused, text)
		}
	}
	for _, s := range e.Subjects {
		if s.Status != labels.Unknown || s.Answers[0].Code != 403 {
			t.Errorf("subject %+v", s)
		}
	}
	if _, err := startDaemon(t, stock).Ctr(testContext(t), "referrers", "explain", "--plain-http", reg.Host+"/app:v1"); err == nil {
		t.Error("a stock daemon explains")
	}
}

// Of an image that is stored, a registry that fails altogether is explained too.
func TestExplainStoredImageOfARegistryThatFails(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(everything))
	pull(t, d, reg.Host+"/app:v1", "--plain-http")
	reg.Fail(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	e := explained(t, d, reg.Host+"/app:v1")
	if e.Digest != f.Get(fixture.Image).Digest || len(e.Subjects) < 2 {
		t.Fatalf("explained is %+v", e)
	}
	for _, s := range e.Subjects {
		if s.Status != labels.Unknown || s.Answers[0].Code != http.StatusForbidden {
			t.Errorf("subject %+v", s)
		}
	}
}
