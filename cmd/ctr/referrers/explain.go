package referrers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/urfave/cli/v3"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

var explainCommand = &cli.Command{
	Name:      "explain",
	Usage:     "Explain what a pull takes of an image's referrers, and why",
	ArgsUsage: "[flags] <ref>",
	Description: `Ask the registry what refers to the image, and say which rule of the daemon
matches, what each host answered, and of every referrer whether a pull would take
it and why. Nothing is stored. An image that is stored is explained at its stored
digest, any other at what its tag points to now.

Examples:
  ctr referrers explain docker.io/library/alpine:latest
  ctr referrers explain --format json --artifact-type sboms docker.io/library/alpine:latest`,
	Flags: append(append([]cli.Flag{}, commands.RegistryFlags...),
		&cli.StringFlag{
			Name:  "format",
			Usage: `"text" or "json"`,
			Value: "text",
		},
		&cli.StringSliceFlag{
			Name:  "platform",
			Usage: "Explain a pull for the platform (default: the daemon's)",
		},
		&cli.StringSliceFlag{
			Name:  "artifact-type",
			Usage: "Explain a pull that selects the artifact type, glob or set",
		},
	),
	DisableSliceFlagSeparator: true,
	Action: func(ctx context.Context, cmd *cli.Command) error {
		ref := cmd.Args().First()
		if ref == "" {
			return errors.New("name an image")
		}
		var print func(io.Writer, *explain.Explanation) error
		switch format := cmd.String("format"); format {
		case "text":
			print = printExplanation
		case "json":
			print = printJSON[*explain.Explanation]
		default:
			return fmt.Errorf(`format %q is not known; write "text" or "json"`, format)
		}
		wanted, err := platforms.ParseAll(cmd.StringSlice("platform"))
		if err != nil {
			return err
		}
		client, ctx, cancel, err := commands.NewClient(ctx, cmd)
		if err != nil {
			return err
		}
		defer cancel()
		switch image, err := client.ImageService().Get(ctx, ref); {
		case err == nil && !strings.Contains(ref, "@"):
			ref += "@" + image.Target.Digest.String()
		case err != nil && !errdefs.IsNotFound(err):
			return err
		}
		opts, err := registryOptions(ctx, cmd, ref)
		if err != nil {
			return err
		}
		src, err := source.New(ctx, ref,
			source.WithRegistry(opts...),
			source.WithSelection(&api.Selection{ArtifactTypes: cmd.StringSlice("artifact-type")}))
		if err != nil {
			return err
		}
		dst := explain.New(wanted...)
		if err := client.Transfer(ctx, src, dst); err != nil {
			return err
		}
		e, err := dst.Explanation(ctx)
		if err != nil {
			return err
		}
		return print(cmd.Root().Writer, e)
	},
}

// registryOptions are those that ctr's own pull makes of its flags.
func registryOptions(ctx context.Context, cmd *cli.Command, ref string) ([]registry.Opt, error) {
	for _, flag := range []string{"skip-verify", "tlscacert", "tlscert", "tlskey"} {
		if cmd.IsSet(flag) {
			return nil, fmt.Errorf("--%s does not reach the daemon; configure the registry in a hosts directory and name it with --hosts-dir", flag)
		}
	}
	credentials, err := commands.NewStaticCredentials(ctx, cmd, ref)
	if err != nil {
		return nil, err
	}
	opts := []registry.Opt{registry.WithCredentials(credentials), registry.WithHostDir(cmd.String("hosts-dir"))}
	if cmd.Bool("plain-http") {
		opts = append(opts, registry.WithDefaultScheme("http"))
	}
	if cmd.Bool("http-dump") {
		opts = append(opts, registry.WithHTTPDebug(), registry.WithClientStream(log.G(ctx).Writer()))
	}
	if cmd.Bool("http-trace") {
		opts = append(opts, registry.WithHTTPTrace())
	}
	return opts, nil
}

func printExplanation(w io.Writer, e *explain.Explanation) error {
	out := &treeWriter{w: w}
	out.line("", e.Image+" "+e.Digest.String())
	out.line("", e.Selection)
	for _, s := range e.Subjects {
		name := "referrer"
		switch {
		case s.Digest == e.Digest:
			name = "root"
		case s.Platform != "":
			name = s.Platform
		case s.Image:
			name = "manifest"
		}
		out.line("", "")
		out.line("", fmt.Sprintf("%s %s: %s", name, s.Digest, s.Status))
		for _, a := range s.Answers {
			text := a.Host + ": " + a.Request
			if a.Status != "" {
				text += ": " + string(a.Status)
			}
			if a.Code != 0 {
				text += fmt.Sprintf(" (HTTP %d)", a.Code)
			}
			if a.Detail != "" {
				text += ": " + a.Detail
			}
			out.line("  asked ", printable(text))
		}
		for _, r := range s.Taken {
			out.line("  take  ", printable(fmt.Sprintf("%s %s: %s", r.Digest, r.ArtifactType, r.Reason)))
		}
		for _, r := range s.Left {
			out.line("  leave ", printable(strings.TrimSpace(fmt.Sprintf("%s %s: %s", r.Digest, r.ArtifactType, r.Reason))))
		}
	}
	out.line("", "")
	if len(e.Subjects) == 0 {
		out.line("", "no registry is asked: nothing is taken and nothing required")
	}
	if e.Refused != "" {
		out.line("", printable("a pull would fail: "+e.Refused))
	} else {
		out.line("", "a pull would succeed")
	}
	return out.err
}
