package referrers

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

var catCommand = &cli.Command{
	Name:      "cat",
	Usage:     "Print the content of a stored referrer: the SBOM, the signature",
	ArgsUsage: "[flags] <image> [<digest>]",
	Description: `Print the content of one stored referrer of the image to standard output. Name it
by the digest that ` + "`ctr referrers ls`" + ` shows, or select it by its artifact type. If
several match, they are listed on standard error and none is printed; the same goes
for an artifact with several layers. No registry is asked.

The content is verified while it streams: if its digest is wrong the command ends
with an error, and the output must not be used. On a terminal, control characters
are shown as "?".

Examples:
  ctr referrers cat --artifact-type sboms docker.io/library/alpine:latest > sbom.json
  ctr referrers cat docker.io/library/alpine:latest sha256:c23c734c40ef755d2cbcb801d86e405f4d6887c12707051bfc6ea11e6d12f29a
  ctr referrers cat --manifest --artifact-type application/vnd.cncf.notary.signature docker.io/library/alpine:latest`,
	Flags: []cli.Flag{
		&cli.StringFlag{
			Name:  "digest",
			Usage: "Digest of the referrer, instead of the argument",
		},
		&cli.StringSliceFlag{
			Name:  "artifact-type",
			Usage: "Artifact type, glob or set of the referrer",
		},
		&cli.StringFlag{
			Name:  "media-type",
			Usage: "Media type of the layer to print, if there are several",
		},
		&cli.IntFlag{
			HideDefault: true,
			Name:        "layer",
			Usage:       "Number of the layer to print, from 0, if there are several",
		},
		&cli.BoolFlag{
			Name:  "manifest",
			Usage: "Print the referrer's manifest",
		},
	},
	Action: func(ctx context.Context, cmd *cli.Command) error {
		name, dgst, err := imageAndDigest(cmd)
		if err != nil {
			return err
		}
		wanted, err := selector(cmd.StringSlice("artifact-type"))
		if err != nil {
			return err
		}
		if cmd.Bool("manifest") && (cmd.IsSet("layer") || cmd.IsSet("media-type")) {
			return usagef("--manifest prints no layer; leave out --layer and --media-type")
		}
		if cmd.Int("layer") < 0 {
			return usagef("--layer %d: layers are counted from 0", cmd.Int("layer"))
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
		store := client.ContentStore()
		read, err := stored.Read(ctx, store, image)
		if err != nil {
			return err
		}
		var matches []stored.Referrer
		for _, r := range flat(read.Referrers) {
			if (dgst == "" || r.Digest == dgst) && wanted(policyOf(r)) {
				matches = append(matches, r)
			}
		}
		switch len(matches) {
		case 0:
			return noneStored(read, asked(cmd, dgst))
		case 1:
		default:
			if err := stored.AddSizes(ctx, store, matches); err != nil {
				return err
			}
			return several(cmd.Root().ErrWriter, image.Name, matches)
		}
		desc := matches[0].Descriptor()
		if !cmd.Bool("manifest") {
			if desc, err = layerOf(ctx, cmd, store, matches[0]); err != nil {
				return err
			}
		}
		return stream(ctx, cmd.Root().Writer, store, desc, image.Name)
	},
}

// imageAndDigest reads the arguments; the digest is empty where none is named.
func imageAndDigest(cmd *cli.Command) (string, digest.Digest, error) {
	text := cmd.String("digest")
	switch n := cmd.NArg(); {
	case cmd.Args().First() == "":
		return "", "", usagef("name an image, as `ctr images ls` shows it")
	case n > 2 || n == 2 && text != "":
		return "", "", usagef("one image and one digest at a time: %q is one too many", cmd.Args().Get(n-1))
	case n == 2:
		text = cmd.Args().Get(1)
	}
	dgst := digest.Digest(text)
	if text != "" && dgst.Validate() != nil {
		return "", "", usagef("%q is no digest; write it whole, as `ctr referrers ls` shows it", text)
	}
	return cmd.Args().First(), dgst, nil
}

func asked(cmd *cli.Command, dgst digest.Digest) []string {
	if dgst != "" {
		return []string{dgst.String()}
	}
	return cmd.StringSlice("artifact-type")
}

// several lists the referrers that are meant, none of which is guessed.
func several(w io.Writer, image string, matches []stored.Referrer) error {
	out := &lines{w: w}
	for _, r := range matches {
		out.line("  ", fmt.Sprintf("%s %s (%s), refers to %s", r.Digest, typeOf(r), size(r), r.Subject))
	}
	if out.err != nil {
		return out.err
	}
	return exitf(exitAmbiguous, "%d referrers of image %s are meant; name one by its digest: ctr referrers cat %s %s", len(matches), image, image, matches[0].Digest)
}

// severalLayers lists the layers that are meant.
func severalLayers(w io.Writer, referrer digest.Digest, layers []ocispec.Descriptor, chosen []int) error {
	out := &lines{w: w}
	for _, i := range chosen {
		out.line("  ", fmt.Sprintf("%d %s %s (%s)", i, layers[i].MediaType, layers[i].Digest, bytesText(layers[i].Size)))
	}
	if out.err != nil {
		return out.err
	}
	return exitf(exitAmbiguous, "%d layers of %s are meant; choose one with --layer or --media-type", len(chosen), referrer)
}
