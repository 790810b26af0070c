package referrers

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

var pushCommand = &cli.Command{
	Name:      "push",
	Usage:     "Push an image to a remote, with its stored referrers",
	ArgsUsage: "[flags] <remote> [<local>]",
	Description: `Push an image and then its stored referrers, whatever the value of the daemon's
key push: those of its index and of each manifest that is pushed, and their own
referrers. If the registry has no referrers API, the fallback tag is updated.

With --artifact-type only referrers of those types are pushed: exact media types, globs,
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
			Usage: "Push only referrers of the artifact type, glob or set (default: all stored ones)",
		},
	),
	Action: func(ctx context.Context, cmd *cli.Command) error {
		ref, local := cmd.Args().First(), cmd.Args().Get(1)
		switch {
		case ref == "":
			return usagef("name the remote image to push to")
		case cmd.NArg() > 2:
			return usagef("one image at a time: %q is one too many", cmd.Args().Get(2))
		}
		if local == "" {
			local = ref
		}
		if spec, err := reference.Parse(ref); err != nil || spec.Object == "" {
			return usagef("%q is no whole name of an image in a registry: write host, repository and tag, as registry.example.com/app:v1", ref)
		}
		types := cmd.StringSlice("artifact-type")
		if _, err := selector(types); err != nil {
			return err
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
		stored, err := getImage(ctx, client, local)
		if err != nil {
			return err
		}
		opts, err := registryOptions(ctx, cmd, ref)
		if err != nil {
			return err
		}
		dst, err := source.New(ctx, ref,
			source.WithRegistry(opts...),
			source.WithSelection(&api.Selection{ArtifactTypes: types}))
		if err != nil {
			return err
		}
		err = withProgress(ctx, cmd, func(opts ...transfer.Opt) error {
			return client.Transfer(ctx, image.NewStore(local, image.WithPlatforms(wanted...)), dst, opts...)
		})
		if err != nil && inPart(ctx, client.ContentStore(), stored.Target) {
			err = fmt.Errorf("%w; only some platforms of image %s are stored: pull the others too, with `ctr images pull --all-platforms %s`", err, local, local)
		}
		if err = inactive(ctx, client, err); err != nil {
			return err
		}
		out := &lines{w: cmd.Root().Writer}
		out.line("", fmt.Sprintf("image %s is pushed to %s, with its referrers", local, ref))
		return out.err
	},
}

// inPart reports whether content is missing that the image names.
func inPart(ctx context.Context, store content.Store, target ocispec.Descriptor) bool {
	missing := false
	_ = images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if _, err := store.Info(ctx, desc.Digest); errdefs.IsNotFound(err) {
			missing = true
			return nil, images.ErrSkipDesc
		}
		return images.Children(ctx, store, desc)
	}), target)
	return missing
}
