// Command containerd is the containerd of the LTS line, v2.3, with the referrers
// plugin built in. The integration tests run against it; what is released is
// the newest containerd, in cmd/containerd.
package main

import (
	"fmt"
	"os"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"
	"github.com/containerd/containerd/v2/cmd/containerd/command"

	_ "github.com/transfer-referrers/transfer-referrers"
	_ "github.com/transfer-referrers/transfer-referrers/verify"
)

func main() {
	// v2.3 has an older command line library than v2.4, hence a main of its own.
	if err := command.App().Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "containerd:", err)
		os.Exit(1)
	}
}
