// Command demo shows the project at work: it starts a registry with a signed
// multi-platform image and a containerd with the plugin, both in a temporary
// place, pulls the image and prints what came with it. `make demo` runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

func main() {
	// With SIGPIPE among them a closed standard output is an error of the write, and
	// does not end the program before it has cleaned up.
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, time.Minute)
	defer cancelTimeout()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	if err := daemon.Root(); err != nil {
		return err
	}
	if err := daemon.Mounts(); err != nil {
		return err
	}
	reg, err := registry.Start(registry.Olareg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	f, err := fixture.Load()
	if err != nil {
		return err
	}
	if err := f.Push(ctx, reg, "app", "v1"); err != nil {
		return err
	}
	d, err := daemon.Start(ctx, daemon.Config{
		Disabled: daemon.Active,
		Plugin: `
  [[plugins."io.containerd.transfer.v1.referrers".rules]]
    repositories   = ["**/app"]
    artifact_types = ["signatures", "attestations", "sboms"]
    required       = ["signatures"]
`,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()

	image := reg.Host + "/app:v1"
	for _, step := range []struct {
		args []string
		show func(string) string
	}{
		{[]string{"images", "pull", "--platform", "linux/amd64", image}, lastLine},
		{[]string{"referrers", "ls", image}, strings.TrimSpace},
	} {
		if _, err := fmt.Println("$ ctr", strings.Join(step.args, " ")); err != nil {
			return err
		}
		out, err := d.Ctr(ctx, step.args...)
		if err != nil {
			return err
		}
		if _, err := fmt.Println(step.show(out)); err != nil {
			return err
		}
	}
	return nil
}

// lastLine is what ctr's progress ends with: piped, it prints its whole tree
// again at every step.
func lastLine(out string) string {
	out = strings.TrimSpace(out)
	return out[strings.LastIndex(out, "\n")+1:]
}
