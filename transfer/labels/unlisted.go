package labels

import (
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxUnlisted is how many repositories one mark names, so that it stays a label: containerd
// takes 4,096 bytes. The earliest go.
const maxUnlisted = 8

// Unlisted returns the key on a subject that says since when which repositories no longer
// list a referrer of it: "<RFC 3339> <repository>", several separated by commas. A repository's
// listing tells of no other, which may hold an image of the same content.
func Unlisted(dgst digest.Digest) string {
	return unlisted + dgst.Algorithm().String() + "." + dgst.Encoded()
}

// IsUnlisted reports whether a key is one that Unlisted returns.
func IsUnlisted(key string) bool { return strings.HasPrefix(key, unlisted) }

// UnlistedSince returns when a pull from the repository first missed the referrer, or the zero
// time where none did. "" stands for any repository. A mark that names none speaks for all.
func UnlistedSince(subject map[string]string, dgst digest.Digest, repository string) time.Time {
	var first time.Time
	for _, e := range entriesOf(subject[Unlisted(dgst)]) {
		at, by := parseEntry(e)
		if (repository == "" || by == "" || by == repository) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// AddUnlisted returns the mark with the repository's entry, which is left as it is where there
// is one.
func AddUnlisted(mark string, at time.Time, repository string) string {
	entries := entriesOf(mark)
	if slices.ContainsFunc(entries, func(e string) bool { _, by := parseEntry(e); return by == repository || by == "" }) {
		return mark
	}
	entries = append(entries, at.UTC().Format(time.RFC3339)+" "+repository)
	return strings.Join(entries[max(0, len(entries)-maxUnlisted):], ",")
}

// RemoveUnlisted returns the mark without the repository's entry, "" where no other is left.
func RemoveUnlisted(mark, repository string) string {
	return strings.Join(slices.DeleteFunc(entriesOf(mark), func(e string) bool {
		_, by := parseEntry(e)
		return by == repository || by == ""
	}), ",")
}

// entriesOf returns the entries of a mark that can be read.
func entriesOf(mark string) []string {
	return slices.DeleteFunc(strings.Split(mark, ","), func(e string) bool {
		at, _ := parseEntry(e)
		return at.IsZero()
	})
}

func parseEntry(entry string) (at time.Time, repository string) {
	text, repository, _ := strings.Cut(entry, " ")
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, ""
	}
	return at, repository
}
