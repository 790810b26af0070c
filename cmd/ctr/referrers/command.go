// Package referrers is ctr's command for the referrers of images. One file holds
// one command; the others what they share.
package referrers

import (
	"context"

	"github.com/urfave/cli/v3"
)

// Command is `ctr referrers`.
var Command = &cli.Command{
	Name:    "referrers",
	Aliases: []string{"referrer"},
	Usage:   "List, fetch and push the referrers of images: signatures, attestations, SBOMs",
	Description: `Referrers are artifacts in a repository that refer to an image: signatures,
attestations, SBOMs. A pull brings those that the daemon's rules choose; these
commands list the stored ones, fetch new ones, print their content, explain what
a pull would take, say whether an image is verified by them, list what a namespace has
of all this, and push an image with its stored referrers.

` + exitCodes,
	ArgsUsage:                 "command [command options]",
	Commands:                  prepared(lsCommand, fetchCommand, catCommand, explainCommand, verifyCommand, inventoryCommand, pushCommand),
	Action:                    noCommand,
	OnUsageError:              onUsageError,
	DisableSliceFlagSeparator: true,
}

// noCommand answers where no command, or none that is known, is named.
func noCommand(_ context.Context, cmd *cli.Command) error {
	if name := cmd.Args().First(); name != "" {
		return usagef("command %q is not known; `ctr referrers --help` lists them", name)
	}
	return cli.ShowSubcommandHelp(cmd)
}

// prepared gives commands what they have in common: exit codes, and errors that may
// be printed.
func prepared(commands ...*cli.Command) []*cli.Command {
	for _, c := range commands {
		run := c.Action
		c.Action = func(ctx context.Context, cmd *cli.Command) error { return shown(run(ctx, cmd)) }
		c.OnUsageError = onUsageError
		c.Description += "\n\n" + exitCodes
		c.DisableSliceFlagSeparator = true
	}
	return commands
}

func onUsageError(_ context.Context, cmd *cli.Command, err error, _ bool) error {
	return usagef("%w; `%s --help` shows how to write it", err, cmd.FullName())
}
