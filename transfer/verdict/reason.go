package verdict

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Prefix begins the text of every refusal: the kubelet shows it as the reason that a pod
// waits (kubernetes, ErrSignatureValidationFailed).
const Prefix = "SignatureValidationFailed: "

const (
	// maxReason is how many bytes a reason may have: the API server of Kubernetes refuses
	// events of 1,024, and others put words around it.
	maxReason = 800
	// maxFound is how many pieces of evidence a reason names.
	maxFound = 2
	// maxFoundText is how many bytes it says of each.
	maxFoundText = 220
)

// denied is the reason for an image that a rule denies.
func denied(image string, s *policy.Selection) string {
	return short(fmt.Sprintf("image %s is refused: %s denies every image (deny = true); write a rule for its repository before that one, if it may run here", image, s.RuleName()))
}

// reason says which requirement does not hold, what was found instead and what to do about
// it: for whom it wakes at night.
func (c *Case) reason(v *Verdict) string {
	for _, m := range v.Manifests {
		for i, n := range m.Needs {
			if n.Holds {
				continue
			}
			return short(c.reasonOf(m, i, n))
		}
	}
	return short(fmt.Sprintf("image %s is refused: %s verifies it, and it has no manifest that could be run; pull it for another platform", c.Image, v.Rule))
}

func (c *Case) reasonOf(m ManifestVerdict, i int, n Need) string {
	what := "manifest " + Short(m.Digest)
	if m.Platform != "" {
		what += " (" + m.Platform + ")"
	}
	found, remedy := c.instead(m.Digest, i)
	has := "none counts"
	if len(n.Identities) > 0 {
		has = fmt.Sprintf("%d counts, by %s", len(n.Identities), shortHex(strings.Join(n.Identities, ", ")))
	}
	return fmt.Sprintf("image %s is refused: %s needs %s of %s, and %s: %s. %s; every reason: ctr referrers %s %s",
		c.Image, c.Selection.RuleName(), n.Requirement, what, has, found, remedy, c.tells(), c.Image)
}

// tells is the command that tells every reason: explain asks the registry, as a pull does.
func (c *Case) tells() string {
	if c.Stored {
		return "verify"
	}
	return "explain"
}

// again is what to do once the registry has what was missing.
func (c *Case) again() string {
	if c.Stored {
		return "and fetch its referrers"
	}
	return "and pull again"
}

// instead says what was found in place of what is needed, and the remedy.
func (c *Case) instead(manifest digest.Digest, requirement int) (found, remedy string) {
	m := Manifest{Digest: manifest}
	for _, known := range c.Manifests {
		if known.Digest == manifest {
			m = known
		}
	}
	doubt := c.doubt(m)
	uncounted := c.uncounted(m, requirement)
	var parts []string
	for i, p := range uncounted {
		if i == maxFound {
			parts = append(parts, fmt.Sprintf("nor do %d more", len(uncounted)-maxFound))
			break
		}
		parts = append(parts, c.whyNot(p))
	}
	switch {
	case doubt != "":
		parts = append([]string{doubt}, parts...)
		remedy = "See to the registry, " + c.again()
	case len(parts) == 0:
		parts, remedy = []string{"nothing of the kind refers to it"}, "Have it signed, "+c.again()
	default:
		remedy = "Have it signed by whom the rule names, or mend the rule's trust"
	}
	return strings.Join(parts, ", "), remedy
}

// uncounted returns the pieces that do not count for a requirement of the manifest, those first
// that lack least. What counts for another requirement is left out.
func (c *Case) uncounted(m Manifest, requirement int) []Piece {
	out := slices.DeleteFunc(c.of(m), func(p Piece) bool {
		return len(c.counts(requirement, p)) > 0 || c.examined(p).Counted
	})
	rank := func(p Piece) int {
		switch {
		case p.Near || p.Unsigned:
			return 0
		case p.Counts != nil: // it was verified, and found to be by nobody of the rule
			return 1
		}
		return 2
	}
	slices.SortStableFunc(out, func(a, b Piece) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Referrer, b.Referrer))
	})
	return out
}

// whyNot says in short why a piece does not count.
func (c *Case) whyNot(p Piece) string {
	what := string(p.Format)
	if what == "" {
		what = "referrer"
	}
	why := "it is of another kind"
	if reasons := c.examined(p).Reasons; len(reasons) > 0 {
		why = shortHex(strings.Join(reasons, "; "))
	}
	return fmt.Sprintf("%s %s does not (%s)", what, Short(p.Referrer), clip(why))
}

// longHex is a digest or a fingerprint in a reason.
var longHex = regexp.MustCompile(fmt.Sprintf("([0-9a-f]{%d})[0-9a-f]{%d,}", shortDigest, 64-shortDigest))

// shortHex shortens the digests and fingerprints in a text as Short does: they would take the
// room of what is to be read.
func shortHex(text string) string { return longHex.ReplaceAllString(text, "$1") }

// of returns the pieces on the manifest and above it.
func (c *Case) of(m Manifest) []Piece {
	out := slices.Clone(c.bySubject[m.Digest])
	for _, above := range m.Above {
		out = append(out, c.bySubject[above]...)
	}
	return out
}

// doubt says why there may be evidence that is not known, "" where all is known.
func (c *Case) doubt(m Manifest) string {
	if c.Cut != "" {
		return c.Cut
	}
	if c.Status == nil {
		return ""
	}
	for _, subject := range append([]digest.Digest{m.Digest}, m.Above...) {
		switch status, why := c.Status(subject); status {
		case labels.Unknown:
			return "what refers to " + Short(subject) + " is not known (" + clip(shortHex(why)) + ")"
		case labels.Truncated:
			return "a limit cut what refers to " + Short(subject) + " (" + clip(shortHex(why)) + ")"
		}
	}
	return ""
}

func clip(text string) string {
	if len(text) > maxFoundText {
		return strings.ToValidUTF8(text[:maxFoundText], "") + "…"
	}
	return text
}

// short keeps a reason in bounds, and its end, which is the remedy.
func short(reason string) string {
	reason = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' ' // part of it comes from the network, and goes to terminals
		}
		return r
	}, reason)
	if len(reason) <= maxReason {
		return reason
	}
	const end = maxReason / 4
	return strings.ToValidUTF8(reason[:maxReason-end], "") + "… " + strings.ToValidUTF8(reason[len(reason)-end:], "")
}
