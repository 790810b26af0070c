package referrers

import (
	"context"
	"fmt"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"
)

// onlyImage returns the one argument of a command.
func onlyImage(cmd *cli.Command) (string, error) {
	switch n := cmd.NArg(); {
	case n > 1:
		return "", usagef("one image at a time: %q is one too many", cmd.Args().Get(1))
	case cmd.Args().First() == "":
		return "", usagef("name an image, as `ctr images ls` shows it")
	}
	return cmd.Args().First(), nil
}

// getImage returns the image of that name. Where there is none it says where to look.
func getImage(ctx context.Context, client *containerd.Client, name string) (images.Image, error) {
	image, err := client.ImageService().Get(ctx, name)
	if !errdefs.IsNotFound(err) {
		return image, err
	}
	here, _ := namespaces.Namespace(ctx)
	if there := otherNamespace(ctx, client, name); there != "" {
		return image, fmt.Errorf("image %s is in namespace %s, not in %s: add `-n %s` behind ctr: %w", name, there, here, there, err)
	}
	return image, fmt.Errorf("image %s is not in namespace %s; `ctr -n %s images ls` lists what is, by the names to write: %w", name, here, here, err)
}

// otherNamespace returns another namespace that has the image: the kubelet's are in
// k8s.io, ctr looks into default.
func otherNamespace(ctx context.Context, client *containerd.Client, name string) string {
	all, err := client.NamespaceService().List(ctx)
	if err != nil {
		return ""
	}
	for _, ns := range all {
		if _, err := client.ImageService().Get(namespaces.WithNamespace(ctx, ns), name); err == nil {
			return ns
		}
	}
	return ""
}

// atDigest returns the image's reference with the digest that is stored, so that it
// does not matter what the tag says by now.
func atDigest(image images.Image) (string, error) {
	name, _, _ := strings.Cut(image.Name, "@")
	ref := name + "@" + image.Target.Digest.String()
	if _, err := reference.Parse(ref); err != nil {
		return "", fmt.Errorf("image %s has a name that no registry can be asked by; use another of its names, as `ctr images ls` shows them: %w", image.Name, err)
	}
	return ref, nil
}

// inactive explains an error of the daemon's by a plugin that is not active there.
func inactive(ctx context.Context, client *containerd.Client, err error) error {
	if err == nil {
		return nil
	}
	if why := whyInactive(ctx, client); why != "" {
		return fmt.Errorf("%s: %w", why, err)
	}
	return err
}

// whyInactive says why the daemon has no active plugin, and what to do; "" where it has one, or
// does not tell.
func whyInactive(ctx context.Context, client *containerd.Client) string {
	plugins, err := client.IntrospectionService().Plugins(ctx, "type==io.containerd.transfer.v1,id==referrers")
	switch {
	case err != nil:
		return ""
	case len(plugins.Plugins) == 0:
		return "the daemon has no referrers plugin: run this project's containerd, or one that is built with it"
	case plugins.Plugins[0].InitErr != nil:
		return `the referrers plugin is not active on the daemon; write disabled_plugins = ["io.containerd.transfer.v1.local", "io.containerd.grpc.v1.transfer"] into its config.toml and restart it`
	}
	return ""
}
