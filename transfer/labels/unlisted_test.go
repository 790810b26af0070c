package labels

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A repository's listing marks for itself, and takes back its own mark alone.
func TestUnlisted(t *testing.T) {
	t.Parallel()
	const dgst = digest.Digest("sha256:aa")
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	mark := AddUnlisted("", day, "a.test/app")
	mark = AddUnlisted(mark, day.Add(time.Hour), "a.test/copy")
	if again := AddUnlisted(mark, day.Add(2*time.Hour), "a.test/app"); again != mark {
		t.Errorf("marked again: %q", again)
	}
	since := func(mark, repository string) time.Time {
		return UnlistedSince(map[string]string{Unlisted(dgst): mark}, dgst, repository)
	}
	for repository, want := range map[string]time.Time{"a.test/app": day, "a.test/copy": day.Add(time.Hour), "a.test/other": {}, "": day} {
		if got := since(mark, repository); !got.Equal(want) {
			t.Errorf("%q: since %s, want %s", repository, got, want)
		}
	}
	mark = RemoveUnlisted(mark, "a.test/app")
	if !since(mark, "a.test/app").IsZero() || since(mark, "a.test/copy").IsZero() {
		t.Errorf("after one is removed: %q", mark)
	}
	if mark = RemoveUnlisted(mark, "a.test/copy"); mark != "" {
		t.Errorf("after all are removed: %q", mark)
	}
}

// A mark that names no repository speaks for all, what cannot be read for none, and a mark
// stays a label.
func TestUnlistedThatIsOdd(t *testing.T) {
	t.Parallel()
	const dgst = digest.Digest("sha256:aa")
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	old := map[string]string{Unlisted(dgst): day.Format(time.RFC3339)}
	if got := UnlistedSince(old, dgst, "a.test/app"); !got.Equal(day) {
		t.Errorf("without a repository: %s", got)
	}
	if got := RemoveUnlisted(old[Unlisted(dgst)], "a.test/app"); got != "" {
		t.Errorf("the mark that names none stays: %q", got)
	}
	if got := UnlistedSince(map[string]string{Unlisted(dgst): "yesterday a.test/app,,"}, dgst, ""); !got.IsZero() {
		t.Errorf("no time is %s", got)
	}
	mark := ""
	for i := range 100 {
		mark = AddUnlisted(mark, day, fmt.Sprintf("registry.example.com/%0100d", i))
	}
	if len(mark) > 2000 || UnlistedSince(map[string]string{Unlisted(dgst): mark}, dgst, fmt.Sprintf("registry.example.com/%0100d", 99)).IsZero() {
		t.Errorf("a hundred repositories make %d bytes", len(mark))
	}
}
