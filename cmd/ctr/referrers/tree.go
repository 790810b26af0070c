package referrers

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/progress"
	units "github.com/docker/go-units"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// printTree draws the image's subjects, and beneath each what refers to it.
func printTree(w io.Writer, image *stored.Image, now time.Time) error {
	out := &lines{w: w}
	out.line("", image.Name+totalText(image))
	for i, s := range image.Subjects {
		last := i == len(image.Subjects)-1
		text := fmt.Sprintf("%s %s: %s, ", s.Name(), s.Digest, statusOf(image, s))
		if s.Checked.IsZero() {
			text += "never asked"
		} else {
			text += "checked " + age(s.Checked, now)
		}
		out.line(branch(last), text)
		var referrers []stored.Referrer
		for _, r := range image.Referrers {
			if r.Subject == s.Digest {
				referrers = append(referrers, r)
			}
		}
		out.referrers(indent(last), referrers)
	}
	return out.err
}

// totalText says how many referrers are shown, and how large they are; nothing where there are
// none.
func totalText(image *stored.Image) string {
	n := len(flat(image.Referrers))
	switch n {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf(" (1 referrer, %s)", bytesText(totalSize(image.Referrers)))
	}
	return fmt.Sprintf(" (%d referrers, %s)", n, bytesText(totalSize(image.Referrers)))
}

// statusOf says what is known of a subject: "unselected" where there are referrers none of which
// was selected, or where none was asked for since no rule selects any; and in which repository,
// where several have the image.
func statusOf(image *stored.Image, s stored.Subject) string {
	text := string(s.Status)
	if s.Unselected || s.Checked.IsZero() && image.Checked.IsZero() && image.Unselected {
		text = unselected
	}
	if s.Repository != "" && len(image.Repositories) > 1 {
		text += " in " + s.Repository
	}
	return text
}

// imageStatus is that of the whole image, with the repository that its root was asked about in.
func imageStatus(image *stored.Image) string {
	s := stored.Subject{Status: image.Status, Unselected: image.Unselected}
	if len(image.Subjects) > 0 {
		s.Repository = image.Subjects[0].Repository
	}
	return statusOf(image, s)
}

const unselected = "unselected"

// lines writes lines until the first error. What is in them is fit for a terminal:
// much of it may come from a registry.
type lines struct {
	w   io.Writer
	err error
}

func (l *lines) line(prefix, text string) {
	if l.err == nil {
		_, l.err = fmt.Fprintln(l.w, prefix+printable(text))
	}
}

func (l *lines) referrers(prefix string, referrers []stored.Referrer) {
	for i, r := range referrers {
		last := i == len(referrers)-1
		text := fmt.Sprintf("%s %s (%s)", typeOf(r), r.Digest, strings.Join(append(kind(r), size(r)), ", "))
		if !r.Unlisted.IsZero() {
			text += ", no longer listed since " + r.Unlisted.Format(time.RFC3339)
		}
		l.line(prefix+branch(last), text)
		l.referrers(prefix+indent(last), r.Referrers)
	}
}

func branch(last bool) string {
	if last {
		return "└── "
	}
	return "├── "
}

func indent(last bool) string {
	if last {
		return "    "
	}
	return "│   "
}

// typeOf returns the artifact type; what is damaged in the store has none.
func typeOf(r stored.Referrer) string {
	if r.ArtifactType == "" {
		return "-"
	}
	return r.ArtifactType
}

// kind says which set the referrer belongs to, in the singular; a bundle's type does
// not tell.
func kind(r stored.Referrer) []string {
	set := artifact.SetOf(policyOf(r))
	if set == "" {
		return nil
	}
	return []string{strings.TrimSuffix(set, "s")}
}

// size is that of the manifest and of all it names.
func size(r stored.Referrer) string { return bytesText(r.Size + r.ContentSize) }

func bytesText(n int64) string { return progress.Bytes(n).String() }

// age says how long ago that was, as ctr does elsewhere.
func age(at, now time.Time) string {
	return strings.ToLower(units.HumanDuration(now.Sub(at))) + " ago"
}
