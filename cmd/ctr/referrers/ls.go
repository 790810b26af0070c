package referrers

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

var lsCommand = &cli.Command{
	Name:      "ls",
	Aliases:   []string{"list"},
	Usage:     "List the referrers that are stored with an image, or with all images",
	ArgsUsage: "[flags] [<image>]",
	Description: `List the stored referrers of the image: those of its index and those of each of
its stored manifests. No registry is asked. Without an image, list all images with
the number of referrers of each kind.

The status of a subject is the result of the last pull or fetch:
  present    the registry listed its referrers
  absent     the registry said that there are none
  unknown    no registry gave a usable answer, or none was asked
  truncated  a limit was reached
  unselected the registry listed some and none was selected; never asked: no rule selects any
That of an image is the first of unknown, truncated, present, absent that its index
or a platform that was asked about has.

Examples:
  ctr referrers ls
  ctr referrers ls docker.io/library/alpine:latest
  ctr referrers ls --artifact-type signatures --depth 1 docker.io/library/alpine:latest
  ctr referrers ls --format json docker.io/library/alpine:latest`,
	Flags: []cli.Flag{
		&cli.StringFlag{
			Name:  "format",
			Usage: `"tree", "table" or "json" (default: "tree" of an image, "table" of all)`,
		},
		&cli.StringSliceFlag{
			Name:  "artifact-type",
			Usage: "List only referrers of the artifact type, glob or set; exit with 3 or 4 if there are none",
		},
		&cli.IntFlag{
			HideDefault: true,
			Name:        "depth",
			Usage:       "List that many levels of referrers; 1 lists only those of the image (default: all)",
		},
		&cli.BoolFlag{
			Name:    "quiet",
			Aliases: []string{"q"},
			Usage:   "Print only the referrers' digests, or without an image the images' names",
		},
	},
	Action: func(ctx context.Context, cmd *cli.Command) error {
		format := cmd.String("format")
		if !slices.Contains([]string{"", "tree", "table", "json"}, format) {
			return usagef(`format %q is not known; write "tree", "table" or "json"`, format)
		}
		if format != "" && cmd.Bool("quiet") {
			return usagef("--quiet has a format of its own; leave out --format")
		}
		types, depth := cmd.StringSlice("artifact-type"), cmd.Int("depth")
		if depth < 0 {
			return usagef("--depth %d is out of range; write 1 or more, or 0 for all", depth)
		}
		if cmd.NArg() == 0 {
			if len(types) > 0 || depth > 0 {
				return usagef("--artifact-type and --depth need an image; name one, as `ctr images ls` shows it")
			}
			return lsAll(ctx, cmd, format)
		}
		name, err := onlyImage(cmd)
		if err != nil {
			return err
		}
		wanted, err := selector(types)
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
		read, err := stored.Read(ctx, client.ContentStore(), image)
		if err != nil {
			return err
		}
		same, err := client.ImageService().List(ctx, fmt.Sprintf("target.digest==%s", image.Target.Digest))
		if err != nil {
			return err
		}
		newAnnotator(client, same).annotate(ctx, read)
		read.Referrers = matching(read.Referrers, wanted, depth)
		if cmd.Bool("quiet") {
			err = printDigests(cmd.Root().Writer, read, wanted)
		} else if err = stored.AddSizes(ctx, client.ContentStore(), read.Referrers); err == nil {
			read.TotalSize = totalSize(read.Referrers)
			err = printImage(cmd.Root().Writer, read, format)
		}
		if err != nil {
			return err
		}
		if len(types) > 0 && len(read.Referrers) == 0 {
			return noneStored(read, types)
		}
		return nil
	},
}

// lsAll lists all images. One that cannot be read is unknown, and does not keep the
// others from being listed.
func lsAll(ctx context.Context, cmd *cli.Command, format string) error {
	client, ctx, cancel, err := commands.NewClient(ctx, cmd)
	if err != nil {
		return err
	}
	defer cancel()
	list, err := client.ImageService().List(ctx)
	if err != nil {
		return err
	}
	w := cmd.Root().Writer
	if cmd.Bool("quiet") {
		out := &lines{w: w}
		for _, image := range list {
			out.line("", image.Name)
		}
		return out.err
	}
	read, failed, more := []*stored.Image{}, 0, newAnnotator(client, list)
	for _, image := range list {
		r, err := stored.Read(ctx, client.ContentStore(), image)
		if err == nil && format != "" && format != "table" { // which prints no sizes
			err = stored.AddSizes(ctx, client.ContentStore(), r.Referrers)
		}
		if err != nil {
			failed++
			fmt.Fprintln(cmd.Root().ErrWriter, "ctr:", printable(err.Error()))
			r = unreadable(image)
		} else {
			r.TotalSize = totalSize(r.Referrers)
			more.annotate(ctx, r)
		}
		read = append(read, r)
	}
	switch format {
	case "json":
		err = printJSON(w, read)
	case "tree":
		for _, r := range read {
			if err = printTree(w, r, time.Now()); err != nil {
				break
			}
		}
	default:
		err = printImages(w, read, time.Now())
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d images could not be read", failed, len(list))
	}
	return err
}

func unreadable(image images.Image) *stored.Image {
	return &stored.Image{Name: image.Name, Digest: image.Target.Digest, Status: labels.Unknown, Referrers: []stored.Referrer{}, Subjects: []stored.Subject{}}
}

func printDigests(w io.Writer, image *stored.Image, wanted func(artifact.Referrer) bool) error {
	out := &lines{w: w}
	for _, r := range flat(image.Referrers) {
		if wanted(policyOf(r)) {
			out.line("", r.Digest.String())
		}
	}
	return out.err
}

func printImage(w io.Writer, image *stored.Image, format string) error {
	switch format {
	case "json":
		return printJSON(w, image)
	case "table":
		return printReferrers(w, image, time.Now())
	default:
		return printTree(w, image, time.Now())
	}
}

// matching keeps the wanted referrers, and those that lead to them, down to the depth;
// 0 is all the way.
func matching(referrers []stored.Referrer, wanted func(artifact.Referrer) bool, depth int) []stored.Referrer {
	out := []stored.Referrer{}
	for _, r := range referrers {
		if depth == 1 {
			r.Referrers = []stored.Referrer{}
		} else {
			r.Referrers = matching(r.Referrers, wanted, depth-1)
		}
		if len(r.Referrers) > 0 || wanted(policyOf(r)) {
			out = append(out, r)
		}
	}
	return out
}

// flat returns the tree's referrers, each once.
func flat(referrers []stored.Referrer) []stored.Referrer {
	var out []stored.Referrer
	var walk func([]stored.Referrer)
	walk = func(list []stored.Referrer) {
		for _, r := range list {
			if !slices.ContainsFunc(out, func(o stored.Referrer) bool { return o.Digest == r.Digest }) {
				out = append(out, r)
			}
			walk(r.Referrers)
		}
	}
	walk(referrers)
	return out
}

func policyOf(r stored.Referrer) artifact.Referrer {
	return artifact.Referrer{ArtifactType: r.ArtifactType, Annotations: r.Annotations}
}
