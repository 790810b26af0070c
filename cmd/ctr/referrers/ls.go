package referrers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

var lsCommand = &cli.Command{
	Name:      "ls",
	Aliases:   []string{"list"},
	Usage:     "List the referrers that are stored with an image",
	ArgsUsage: "[flags] <image>",
	Description: `List the referrers that are in the content store, tied to the image: those of
its index and those of each of its manifests that is stored. No registry is asked.

The status of a subject says what the last pull learnt:
  present    the registry listed its referrers
  absent     the registry said that there are none
  unknown    it could not be learnt, or no pull asked
  truncated  a limit cut the list

Examples:
  ctr referrers ls docker.io/library/alpine:latest
  ctr referrers ls --format json docker.io/library/alpine:latest`,
	Flags: []cli.Flag{
		&cli.StringFlag{
			Name:  "format",
			Usage: `"tree" or "json"`,
			Value: "tree",
		},
	},
	DisableSliceFlagSeparator: true,
	Action: func(ctx context.Context, cmd *cli.Command) error {
		ref := cmd.Args().First()
		if ref == "" {
			return errors.New("name an image, as `ctr images ls` shows it")
		}
		var print func(io.Writer, *stored.Image) error
		switch format := cmd.String("format"); format {
		case "tree":
			print = printTree
		case "json":
			print = printJSON[*stored.Image]
		default:
			return fmt.Errorf(`format %q is not known; write "tree" or "json"`, format)
		}
		client, ctx, cancel, err := commands.NewClient(ctx, cmd)
		if err != nil {
			return err
		}
		defer cancel()
		image, err := client.ImageService().Get(ctx, ref)
		if err != nil {
			return err
		}
		read, err := stored.Read(ctx, client.ContentStore(), image)
		if err != nil {
			return err
		}
		return print(cmd.Root().Writer, read)
	},
}

func printJSON[T any](w io.Writer, v T) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printTree draws the image's subjects, and beneath each what refers to it.
func printTree(w io.Writer, image *stored.Image) error {
	out := &treeWriter{w: w}
	out.line("", image.Name)
	for i, s := range image.Subjects {
		last := i == len(image.Subjects)-1
		text := fmt.Sprintf("%s %s: %s", s.Name(), s.Digest, s.Status)
		if s.Checked.IsZero() {
			text += ", never asked"
		} else {
			text += ", checked " + s.Checked.Format(time.RFC3339)
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

type treeWriter struct {
	w   io.Writer
	err error
}

func (t *treeWriter) line(prefix, text string) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.w, prefix+text)
	}
}

func (t *treeWriter) referrers(prefix string, referrers []stored.Referrer) {
	for i, r := range referrers {
		last := i == len(referrers)-1
		text := printable(r.ArtifactType) + " " + r.Digest.String()
		if !r.Unlisted.IsZero() {
			text += ", no longer listed since " + r.Unlisted.Format(time.RFC3339)
		}
		t.line(prefix+branch(last), text)
		t.referrers(prefix+indent(last), r.Referrers)
	}
}

// printable keeps what a stranger wrote from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
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
