package referrers

import (
	"context"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/cmd/ctr/commands/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/urfave/cli/v3"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

var pushCommand = &cli.Command{
	Name:      "push",
	Usage:     "Push an image to a remote, with its stored referrers",
	ArgsUsage: "[flags] <remote> [<local>]",
	Description: `Push an image, and after it what is stored of its referrers, whatever the
daemon's key push says: those of its index and of each manifest that is pushed, and
theirs. Where the registry does not list referrers by itself, its fallback tag is
written.

With --artifact-type only those of the types are pushed: exact media types, globs,
the sets signatures, attestations, sboms and all, and denials, which begin with "!".

Examples:
  ctr referrers push registry.example.com/app:v1
  ctr referrers push --artifact-type signatures registry.example.com/app:v1 docker.io/library/app:v1
  ctr referrers push --artifact-type all --artifact-type '!sboms' registry.example.com/app:v1`,
	Flags: registryFlags(
		&cli.StringSliceFlag{
			Name:  "platform",
			Usage: "Push content from a specific platform",
		},
		&cli.StringSliceFlag{
			Name:  "artifact-type",
			Usage: "Push only referrers of the artifact type, glob or set (default: all that are stored)",
		},
	),
	Action: func(ctx context.Context, cmd *cli.Command) error {
		ref, local := cmd.Args().First(), cmd.Args().Get(1)
		if ref == "" {
			return usagef("name the remote image to push to")
		}
		if local == "" {
			local = ref
		}
		wanted, err := platformsOf(cmd)
		if err != nil {
			return err
		}
		client, ctx, cancel, err := commands.NewClient(ctx, cmd)
		if err != nil {
			return err
		}
		defer cancel()
		opts, err := registryOptions(ctx, cmd, ref)
		if err != nil {
			return err
		}
		dst, err := source.New(ctx, ref,
			source.WithRegistry(opts...),
			source.WithSelection(&api.Selection{ArtifactTypes: cmd.StringSlice("artifact-type")}))
		if err != nil {
			return err
		}
		progress, done := images.ProgressHandler(ctx, cmd.Root().Writer)
		defer done()
		err = client.Transfer(ctx, image.NewStore(local, image.WithPlatforms(wanted...)), dst, transfer.WithProgress(progress))
		return inactive(ctx, client, err)
	},
}
