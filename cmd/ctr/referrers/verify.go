package referrers

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

var verifyCommand = &cli.Command{
	Name:      "verify",
	Usage:     "Say whether a stored image, or each of them, is verified, and why",
	ArgsUsage: "[flags] <image> | --all",
	Description: `Ask the daemon whether the signatures and attestations that are stored with the image
meet its rule, by the keys and identities that it trusts now. No registry is asked, and
nothing is changed. Every piece of evidence is shown, with what it counts for or why it
does not count.

For a multi-platform image, the manifest for the daemon's platform is judged, by what
refers to it and to the indexes above it, unless flags say otherwise.

With --all every image of the namespace is judged, and shown with the number of
containers whose records name it: "warned" is refused by a rule that only warns, "error"
could not be judged. The exit code is 6 if a rule that enforces refuses any, else 1 if any
could not be judged, else 3 if there are images and no rule verifies any.

Examples:
  ctr referrers verify docker.io/library/alpine:latest
  ctr -n k8s.io referrers verify --all
  ctr -n k8s.io referrers verify --format json registry.example.com/app:v1`,
	Flags: []cli.Flag{
		formatFlag,
		&cli.BoolFlag{
			Name:  "all",
			Usage: "Judge every image of the namespace",
		},
		&cli.StringSliceFlag{
			Name:  "platform",
			Usage: "Judge the manifest for the platform (default: the daemon's)",
		},
		&cli.BoolFlag{
			Name:  "all-platforms",
			Usage: "Judge every stored manifest of the image",
		},
	},
	Action: func(ctx context.Context, cmd *cli.Command) error {
		format := cmd.String("format")
		if format != "text" && format != "json" {
			return usagef(`format %q is not known; write "text" or "json"`, format)
		}
		wanted, err := platformsOf(cmd)
		if err != nil {
			return err
		}
		if cmd.Bool("all-platforms") && len(wanted) > 0 {
			return usagef("--platform and --all-platforms exclude each other")
		}
		if cmd.Bool("all") {
			if cmd.NArg() > 0 {
				return usagef("--all judges every image; leave out %q", cmd.Args().First())
			}
			return verifyAll(ctx, cmd, format, wanted)
		}
		name, err := onlyImage(cmd)
		if err != nil {
			return err
		}
		client, ctx, cancel, err := commands.NewClient(ctx, cmd)
		if err != nil {
			return err
		}
		defer cancel()
		stored, err := getImage(ctx, client, name)
		if err != nil {
			return err
		}
		v, err := verifyStored(ctx, client, stored.Name, cmd.Bool("all-platforms"), wanted)
		if err != nil {
			return inactive(ctx, client, err)
		}
		if format == "json" {
			err = printJSON(cmd.Root().Writer, v)
		} else {
			err = printVerification(cmd.Root().Writer, v)
		}
		if err != nil {
			return err
		}
		return verified(v)
	},
}

// verified is the error, with its exit code, of an image that is not verified.
func verified(v *explain.Verification) error {
	switch v.Result {
	case verdict.Verified:
		return nil
	case verdict.Unverified:
		return exitf(exitNone, "no rule verifies image %s", v.Image)
	}
	return exitf(exitRefused, "%s%s", verdict.Prefix, v.Reason)
}

// printVerification prints the verdict and all its reasons.
func printVerification(w io.Writer, v *explain.Verification) error {
	out := &lines{w: w}
	out.line("", v.Image+" "+v.Digest.String())
	mode := ""
	if v.Mode != "" {
		mode = fmt.Sprintf(" (verify = %q)", v.Mode)
	}
	out.line("", v.Rule+mode)
	printVerdict(out, v.Verdict)
	out.line("", "")
	last := string(v.Result)
	if v.Result == verdict.Refused && v.Mode == policy.VerifyWarn {
		last += ", and the rule lets it pass with a warning"
	}
	out.line("", last)
	return out.err
}

// printVerdict prints what holds of each manifest, and what each piece of evidence is worth.
func printVerdict(out *lines, v *verdict.Verdict) {
	for _, m := range v.Manifests {
		name := "manifest"
		if m.Platform != "" {
			name = m.Platform
		}
		out.line("", "")
		out.line("", fmt.Sprintf("%s %s", name, m.Digest))
		for _, n := range m.Needs {
			word := "lacks "
			if n.Holds {
				word = "has "
			}
			by := ""
			if len(n.Identities) > 0 {
				by = ": " + strings.Join(n.Identities, ", ")
			}
			out.line("  "+word, n.Requirement+by)
		}
	}
	if len(v.Evidence) > 0 {
		out.line("", "")
	}
	for _, e := range v.Evidence {
		word := "ignored "
		if e.Counted {
			word = "counted "
		}
		format := string(e.Format)
		if format == "" {
			format = "referrer"
		}
		out.line(word, fmt.Sprintf("%s %s of %s: %s", format, e.Referrer, verdict.Short(e.Subject), strings.Join(e.Reasons, "; ")))
	}
}
