// Package referrers is ctr's command for the referrers of images.
package referrers

import "github.com/urfave/cli/v3"

// Command is `ctr referrers`.
var Command = &cli.Command{
	Name:     "referrers",
	Aliases:  []string{"referrer"},
	Usage:    "Show and push what refers to images: signatures, attestations, SBOMs",
	Commands: []*cli.Command{lsCommand, explainCommand, pushCommand},
}
