package referrers

import (
	"context"
	"fmt"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

var explainCommand = &cli.Command{
	Name:      "explain",
	Usage:     "Explain what a pull takes of an image's referrers, and why",
	ArgsUsage: "[flags] <ref>",
	Description: `Ask the registry for the referrers of the image, and report which rule of the
daemon matches, what each host answered, and for every referrer whether a pull would
take it and why. Nothing is stored. A stored image is explained at its stored digest,
any other at the digest that its tag has now.

If the rule would fail a pull, that is an answer and not an error: the last line says
so, in JSON the field "refused". An image without a manifest for the platform is an
error.

Examples:
  ctr referrers explain docker.io/library/alpine:latest
  ctr referrers explain --platform linux/arm64 docker.io/library/alpine:latest
  ctr referrers explain --format json --artifact-type sboms docker.io/library/alpine:latest`,
	Flags: registryFlags(
		formatFlag,
		&cli.StringSliceFlag{
			Name:  "platform",
			Usage: "Explain a pull for the platform (default: the daemon's)",
		},
		&cli.StringSliceFlag{
			Name:  "artifact-type",
			Usage: "Explain a pull that selects the artifact type, glob or set",
		},
		&cli.IntFlag{
			HideDefault: true,
			Name:        "depth",
			Usage:       "Explain a pull that takes that many levels of referrers, at most the rule's (default: the rule's)",
		},
	),
	Action: func(ctx context.Context, cmd *cli.Command) error {
		name, err := onlyImage(cmd)
		if err != nil {
			return err
		}
		print, err := printerOf(cmd, pullVerdict)
		if err != nil {
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
		ref, err := storedOrNamed(ctx, client, name)
		if err != nil {
			return err
		}
		src, err := selectingSource(ctx, cmd, ref)
		if err != nil {
			return err
		}
		dst := explain.New(wanted...)
		if err := client.Transfer(ctx, src, dst); err != nil {
			return inactive(ctx, client, err)
		}
		e, err := dst.Explanation(ctx)
		if err != nil {
			return err
		}
		e.Image = name
		return print(cmd.Root().Writer, e)
	},
}

// pullVerdict says how a pull would end.
func pullVerdict(e *explain.Explanation) string {
	if e.Refused != "" {
		return "a pull would fail: " + e.Refused
	}
	var less []string
	for _, status := range []labels.Status{labels.Unknown, labels.Truncated} {
		n := 0
		for _, s := range e.Subjects {
			if s.Status == status {
				n++
			}
		}
		if n > 0 {
			less = append(less, fmt.Sprintf("%d of %d subjects %s", n, len(e.Subjects), status))
		}
	}
	if e.Unasked > 0 {
		less = append(less, fmt.Sprintf("%d manifests not asked about", e.Unasked))
	}
	if len(less) > 0 {
		return "a pull would succeed, without knowing all that refers to the image: " + strings.Join(less, ", ")
	}
	return "a pull would succeed"
}

// storedOrNamed returns the reference of an image at its stored digest, or where it
// is not stored as it is named.
func storedOrNamed(ctx context.Context, client *containerd.Client, name string) (string, error) {
	image, err := client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		if spec, err := reference.Parse(name); err != nil || spec.Object == "" {
			return "", usagef("%q is no stored image, and no whole name of one in a registry: write host, repository and tag, as docker.io/library/alpine:latest", name)
		}
		return name, nil
	}
	if err != nil {
		return "", err
	}
	return atDigest(image)
}

// selectingSource is the image in its registry, with what the flags select.
func selectingSource(ctx context.Context, cmd *cli.Command, ref string) (*source.Source, error) {
	types := cmd.StringSlice("artifact-type")
	if _, err := selector(types); err != nil {
		return nil, err
	}
	depth := cmd.Int("depth")
	if depth < 0 || depth > policy.MaxDepth {
		return nil, usagef("--depth %d is out of range; write 1 to %d, or 0 for the rule's own", depth, policy.MaxDepth)
	}
	opts, err := registryOptions(ctx, cmd, ref)
	if err != nil {
		return nil, err
	}
	return source.New(ctx, ref,
		source.WithRegistry(opts...),
		source.WithSelection(&api.Selection{ArtifactTypes: types, Depth: int32(depth)}))
}
