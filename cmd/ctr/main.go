// Command ctr is stock ctr with one more command: referrers.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/cmd/ctr/app"

	"github.com/transfer-referrers/transfer-referrers/cmd/ctr/referrers"
)

func main() {
	ctr := app.New()
	ctr.Commands = append(ctr.Commands, referrers.Command)
	if err := ctr.Run(context.Background(), os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "ctr:", err)
		os.Exit(referrers.ExitCode(err))
	}
}
