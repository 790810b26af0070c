package referrers

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/cmd/ctr/commands/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

var fetchCommand = &cli.Command{
	Name:      "fetch",
	Usage:     "Fetch the referrers of an image that is stored, or of all, without pulling",
	ArgsUsage: "[flags] <image> | --all",
	Description: `Ask the registry for the referrers of the stored image, and store those that the
daemon's rule chooses, as a pull does. The image itself is not changed, even if its
tag has moved, and no stored referrer is removed: one that the registry no longer
lists is marked.

For a multi-platform image, the index and the manifest for the daemon's platform are
asked about, unless flags say otherwise.

With --all the referrers of every image of the namespace are refreshed, in an order of
chance, few images at a time. A registry that answers with Retry-After is left alone
for so long, at most 10 minutes, and each of its images tried once more. Signatures that
a registry has withdrawn are marked, and count no more.

Fetched referrers are kept even if the exit code is 4 or 6.

Examples:
  ctr referrers fetch docker.io/library/alpine:latest
  ctr -n k8s.io referrers fetch --all --older-than 24h
  ctr referrers fetch --artifact-type sboms --depth 1 docker.io/library/alpine:latest
  ctr -n k8s.io referrers fetch --hosts-dir /etc/containerd/certs.d registry.example.com/app:v1`,
	Flags: registryFlags(append(fetchAllFlags,
		formatFlag,
		&cli.StringSliceFlag{
			Name:  "platform",
			Usage: "Ask about the manifest for the platform (default: the daemon's)",
		},
		&cli.BoolFlag{
			Name:  "all-platforms",
			Usage: "Ask about every stored manifest of the image",
		},
		&cli.StringSliceFlag{
			Name:  "artifact-type",
			Usage: "Fetch referrers of the artifact type, glob or set instead of the rule's",
		},
		&cli.IntFlag{
			HideDefault: true,
			Name:        "depth",
			Usage:       "Fetch that many levels of referrers, at most the rule's (default: the rule's)",
		},
		&cli.BoolFlag{
			Name:    "quiet",
			Aliases: []string{"q"},
			Usage:   "Print nothing but errors",
		},
	)...),
	Action: func(ctx context.Context, cmd *cli.Command) error {
		print, err := printerOf(cmd, fetchVerdict)
		if err != nil {
			return err
		}
		wanted, err := platformsOf(cmd)
		if err != nil {
			return err
		}
		opts := []explain.FetchOpt{explain.WithPlatforms(wanted...)}
		if cmd.Bool("all-platforms") {
			if len(wanted) > 0 {
				return usagef("--platform and --all-platforms exclude each other")
			}
			opts = append(opts, explain.WithAllPlatforms())
		}
		if cmd.Bool("quiet") {
			if cmd.IsSet("format") {
				return usagef("--quiet prints nothing; leave out --format")
			}
			print = func(io.Writer, *explain.Explanation) error { return nil }
		}
		if cmd.Bool("all") {
			return fetchAll(ctx, cmd, opts)
		}
		if cmd.IsSet("older-than") || cmd.IsSet("jitter") || cmd.IsSet("max-concurrent") {
			return usagef("--older-than, --jitter and --max-concurrent need --all")
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
		image, err := getImage(ctx, client, name)
		if err != nil {
			return err
		}
		ref, err := atDigest(image)
		if err != nil {
			return err
		}
		src, err := selectingSource(ctx, cmd, ref)
		if err != nil {
			return err
		}
		dst := explain.NewFetch(opts...)
		if err := withProgress(ctx, cmd, func(opts ...transfer.Opt) error {
			return client.Transfer(ctx, src, dst, opts...)
		}); err != nil {
			return inactive(ctx, client, err)
		}
		e, err := dst.Explanation(ctx)
		if err != nil {
			return err
		}
		e.Image = image.Name
		if err := print(cmd.Root().Writer, e); err != nil {
			return err
		}
		return fetched(e)
	},
}

// withProgress draws what comes in as `ctr images pull` does, where a person reads
// the text: in a pipe it would be drawn anew at every step.
func withProgress(ctx context.Context, cmd *cli.Command, run func(...transfer.Opt) error) error {
	w := cmd.Root().Writer
	if cmd.Bool("quiet") || cmd.String("format") == "json" || !isTerminal(w) {
		return run()
	}
	progress, done := images.ProgressHandler(ctx, w)
	defer done()
	return run(transfer.WithProgress(progress))
}

// fetchVerdict says how much there is now.
func fetchVerdict(e *explain.Explanation) string {
	taken, _ := count(e)
	text := fmt.Sprintf("%d referrers are taken, and stored with the image", taken)
	if taken == 1 {
		text = "1 referrer is taken, and stored with the image"
	}
	return text
}

func count(e *explain.Explanation) (taken, left int) {
	for _, s := range e.Subjects {
		taken += len(s.Taken)
		left += len(s.Skipped)
	}
	return taken, left
}

// fetched turns the daemon's answer into an exit code.
func fetched(e *explain.Explanation) error {
	var unknown []string
	for _, s := range e.Subjects {
		if s.Status != labels.Present && s.Status != labels.Absent {
			unknown = append(unknown, fmt.Sprintf("%s %s: %s", subjectName(e, s), s.Digest, s.Status))
		}
	}
	if e.Unasked > 0 {
		unknown = append(unknown, fmt.Sprintf("%d manifests were not asked about", e.Unasked))
	}
	taken, left := count(e)
	switch {
	case e.Refused != "":
		return exitf(exitRefused, "what came is stored, but %s", e.Refused)
	case len(e.Subjects) == 0:
		return exitf(exitUnknown, "no registry was asked about image %s: %s; name what to fetch with --artifact-type", e.Image, e.Selection)
	case len(unknown) > 0:
		return exitf(exitUnknown, "what refers to image %s is not known in full (%s); `ctr referrers explain %s` tells why", e.Image, strings.Join(unknown, ", "), e.Image)
	case taken == 0 && left > 0:
		return exitf(exitNone, "nothing was fetched: the registry lists %d referrers of image %s, of which %s takes none; name others with --artifact-type", left, e.Image, e.Rule)
	case taken == 0:
		return exitf(exitNone, "nothing was fetched: the registry knows of no referrers of image %s", e.Image)
	}
	return nil
}
