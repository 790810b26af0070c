package referrers

import (
	"context"
	"slices"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// lost are flags of ctr's own pull that its message to the daemon has no place for.
var lost = []string{"skip-verify", "tlscacert", "tlscert", "tlskey"}

// registryFlags are those of ctr's own pull. Those that are lost stay out of the help,
// and are known so that they can be refused with the remedy.
func registryFlags(more ...cli.Flag) []cli.Flag {
	var flags []cli.Flag
	for _, flag := range commands.RegistryFlags {
		name := flag.Names()[0]
		if !slices.Contains(lost, name) {
			flags = append(flags, flag)
		} else if _, ok := flag.(*cli.BoolFlag); ok {
			flags = append(flags, &cli.BoolFlag{Name: name, Aliases: flag.Names()[1:], Hidden: true})
		} else {
			flags = append(flags, &cli.StringFlag{Name: name, Aliases: flag.Names()[1:], Hidden: true})
		}
	}
	return append(flags, more...)
}

// registryOptions are those that ctr's own pull makes of its flags.
func registryOptions(ctx context.Context, cmd *cli.Command, ref string) ([]ociregistry.Opt, error) {
	for _, flag := range lost {
		if cmd.IsSet(flag) {
			return nil, usagef("--%s does not reach the daemon; configure the registry in a hosts directory and name it with --hosts-dir", flag)
		}
	}
	credentials, err := commands.NewStaticCredentials(ctx, cmd, ref)
	if err != nil {
		return nil, err
	}
	opts := []ociregistry.Opt{ociregistry.WithCredentials(credentials), ociregistry.WithHostDir(cmd.String("hosts-dir"))}
	if cmd.Bool("plain-http") {
		opts = append(opts, ociregistry.WithDefaultScheme("http"))
	}
	debug := log.G(ctx).Writer()
	if cmd.Bool("http-dump") {
		opts = append(opts, ociregistry.WithHTTPDebug(), ociregistry.WithClientStream(debug))
	}
	if cmd.Bool("http-trace") {
		opts = append(opts, ociregistry.WithHTTPTrace(), ociregistry.WithClientStream(debug))
	}
	return opts, nil
}

func platformsOf(cmd *cli.Command) ([]ocispec.Platform, error) {
	wanted, err := platforms.ParseAll(cmd.StringSlice("platform"))
	if err != nil {
		return nil, usagef("--platform: %w", err)
	}
	return wanted, nil
}

// selector returns what tells referrers of the artifact types from others; all are
// meant where none is named.
func selector(types []string) (func(artifact.Referrer) bool, error) {
	if len(types) == 0 {
		return func(artifact.Referrer) bool { return true }, nil
	}
	p, err := policy.New(nil)
	if err != nil {
		return nil, err
	}
	s, err := p.Select("", types)
	if err != nil {
		return nil, usagef("--artifact-type: %w", err)
	}
	return func(r artifact.Referrer) bool { return s.DecideManifest(r).Verdict == policy.Take }, nil
}
