package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
)

// nodes are the daemons that pull, all of them the same program: one with the plugin
// inert, one with its defaults, one with rules of which none matches, and one that verifies
// every image by the benchmark's key.
type nodes struct{ stock, plugin, idle, enforcing *daemon.Daemon }

const idleConfig = `
  [[plugins."io.containerd.transfer.v1.referrers".rules]]
    repositories   = ["registry.example.com/**"]
    artifact_types = ["all"]
`

const enforcingConfig = `
  [plugins."io.containerd.transfer.v1.referrers".trust.release]
    keys = [%q]
  [[plugins."io.containerd.transfer.v1.referrers".rules]]
    repositories   = ["**"]
    artifact_types = ["signatures", "attestations"]
    verify         = "enforce"
    [[plugins."io.containerd.transfer.v1.referrers".rules.signed]]
      by = ["release"]
`

// withDaemons calls use with daemons whose content is on disk, or where the options
// say. The plugin's configuration is TOML within its table.
func (o options) withDaemons(ctx context.Context, disk bool, plugin string, use func(nodes) error) (err error) {
	if o.dir != "" && !disk {
		restore, failed := setTemp(o.dir)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, restore()) }()
	}
	var n nodes
	for _, start := range []struct {
		to     **daemon.Daemon
		config daemon.Config
	}{
		{&n.stock, daemon.Config{}},
		{&n.plugin, daemon.Config{Disabled: daemon.Active, Plugin: plugin}},
		{&n.idle, daemon.Config{Disabled: daemon.Active, Plugin: idleConfig}},
		{&n.enforcing, daemon.Config{Disabled: daemon.Active, Plugin: fmt.Sprintf(enforcingConfig, o.key.path)}},
	} {
		start.config.LogLevel = "info"
		d, err := daemon.Start(ctx, start.config)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Stop()) }()
		*start.to = d
	}
	return use(n)
}

// setTemp sets the folder for temporary files, until it is restored.
func setTemp(dir string) (restore func() error, err error) {
	before, set := os.LookupEnv("TMPDIR")
	if !set {
		return func() error { return os.Unsetenv("TMPDIR") }, os.Setenv("TMPDIR", dir)
	}
	return func() error { return os.Setenv("TMPDIR", before) }, os.Setenv("TMPDIR", dir)
}
