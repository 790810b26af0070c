package referrers

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
)

var formatFlag = &cli.StringFlag{
	Name:  "format",
	Usage: `"text" or "json"`,
	Value: "text",
}

// printerOf returns what prints an explanation in the format that is asked for; the
// text ends with the verdict.
func printerOf(cmd *cli.Command, verdict func(*explain.Explanation) string) (func(io.Writer, *explain.Explanation) error, error) {
	switch format := cmd.String("format"); format {
	case "text":
		return func(w io.Writer, e *explain.Explanation) error { return printExplanation(w, e, verdict(e)) }, nil
	case "json":
		return printJSON[*explain.Explanation], nil
	default:
		return nil, usagef(`format %q is not known; write "text" or "json"`, format)
	}
}

// printExplanation prints what was asked, answered and decided.
func printExplanation(w io.Writer, e *explain.Explanation, verdict string) error {
	out := &lines{w: w}
	out.line("", e.Image+" "+e.Digest.String())
	out.line("", e.Selection)
	if e.Limits != (explain.Limits{}) {
		out.line("", limitsText(e))
		if len(e.Memory) > 0 {
			out.line("", memoryText(e.Memory))
		}
	}
	for _, s := range e.Subjects {
		out.line("", "")
		out.line("", fmt.Sprintf("%s %s: %s", subjectName(e, s), s.Digest, s.Status))
		for _, a := range s.Answers {
			out.line("  asked ", answerText(a))
		}
		for _, r := range s.Taken {
			out.line("  take  ", fmt.Sprintf("%s %s: %s", r.Digest, r.ArtifactType, r.Reason))
		}
		for _, r := range s.Skipped {
			switch {
			case r.Digest != "":
				out.line("  leave ", fmt.Sprintf("%s %s: %s", r.Digest, r.ArtifactType, r.Reason))
			case r.Status != "": // a request that failed
				out.line("  error ", r.Reason)
			default: // how many there is no room to tell of
				out.line("  leave ", r.Reason)
			}
		}
	}
	if e.Verdict != nil {
		printVerdict(out, e.Verdict)
	}
	out.line("", "")
	if len(e.Subjects) == 0 {
		out.line("", "no registry is asked for referrers: nothing is taken and nothing required")
	}
	if e.TimedOut {
		out.line("", "the search was ended after "+e.Limits.Timeout+" (key timeout)")
	}
	if e.Unasked > 0 {
		out.line("", fmt.Sprintf("%d manifests of the image were not asked about, over the limit of subjects a pull", e.Unasked))
	}
	out.line("", verdict)
	return out.err
}

// limitsText says what is in force as the configuration writes it.
func limitsText(e *explain.Explanation) string {
	l := e.Limits
	return fmt.Sprintf("limits: timeout %s, max_referrers %d, max_blob_size %s, max_total_size %s, max_concurrent_downloads %d; cosign_tags %s",
		l.Timeout, l.MaxReferrers, sizeText(l.MaxBlobSize), sizeText(l.MaxTotalSize), l.MaxConcurrentDownloads, e.CosignTags)
}

// memoryText says what was used of what the daemon remembers.
func memoryText(memory []outcome.Memory) string {
	var texts []string
	for _, m := range memory {
		texts = append(texts, fmt.Sprintf("%s of %s (%s ago)", m.Kind, m.Host, m.Age))
	}
	return "remembered: " + strings.Join(texts, ", ")
}

// sizeText writes a size as the configuration does, exactly.
func sizeText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; i < len(units)-1 && n != 0 && n%1024 == 0; i++ {
		n /= 1024
	}
	return fmt.Sprint(n) + units[i]
}

func subjectName(e *explain.Explanation, s outcome.Subject) string {
	switch {
	case s.Digest == e.Digest:
		return "root"
	case s.Platform != "":
		return s.Platform
	case s.Image:
		return "manifest"
	default:
		return "referrer"
	}
}

func answerText(a outcome.Answer) string {
	text := a.Host
	if a.Mirror {
		text += " (mirror)"
	}
	text += ": " + a.Request
	if a.Status != "" {
		text += ": " + string(a.Status)
	}
	if a.Code != 0 {
		text += fmt.Sprintf(" (HTTP %d)", a.Code)
	}
	if a.Detail != "" {
		text += ": " + a.Detail
	}
	return text
}
