package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// paths puts the places of a node's configuration into the daemon's directory.
func (d *Daemon) paths(file string) string {
	return strings.NewReplacer(
		"/run/containerd/containerd.sock", d.Address,
		"/run/containerd", filepath.Join(d.Dir, "state"),
		"/var/lib/containerd", filepath.Join(d.Dir, "root"),
		"/etc/containerd", d.Dir,
		"/opt/containerd", d.opt(),
		"/etc/cni", d.cni(),
		"/var/run/nri/nri.sock", filepath.Join(d.Dir, "nri.sock"),
	).Replace(file)
}

// node is a node's config.toml, with the tables that it lacks.
func (d *Daemon) node(file string) string {
	quoted := strings.ReplaceAll(file, "'", `"`) // as containerd prints it
	out := d.paths(file)
	for _, table := range d.own() {
		if name, _, _ := strings.Cut(table, "\n"); !strings.Contains(quoted, name) {
			out += table
		}
	}
	return out
}

func (d *Daemon) opt() string { return filepath.Join(d.Dir, "opt") }
func (d *Daemon) cni() string { return filepath.Join(d.Dir, "cni") }

// NRISocket is where plugins of NRI connect, if NRI is enabled.
func (d *Daemon) NRISocket() string { return filepath.Join(d.Dir, "nri.sock") }

// own are tables that keep a daemon to its directory. By default containerd makes
// /opt/containerd, CRI makes /etc/cni/net.d, and the socket of NRI lies in /var/run,
// where two daemons that start at once take it from each other, and one of them ends.
func (d *Daemon) own() []string {
	nri := "  disable = true\n"
	if d.config.NRI != "" {
		nri = fmt.Sprintf("  socket_path = %q\n  plugin_path = %q\n  plugin_config_path = %[2]q\n%s\n", d.NRISocket(), filepath.Join(d.Dir, "nri"), d.config.NRI)
	}
	return []string{
		"[plugins.\"io.containerd.nri.v1.nri\"]\n" + nri,
		fmt.Sprintf("[plugins.\"io.containerd.internal.v1.opt\"]\n  path = %q\n", d.opt()),
		fmt.Sprintf("[plugins.\"io.containerd.cri.v1.runtime\".cni]\n  conf_dir = %q\n", filepath.Join(d.cni(), "net.d")),
	}
}

// writeFiles writes the configuration, and gives the directory to the daemon's
// user.
func (d *Daemon) writeFiles() error {
	for name, file := range d.config.Node {
		path := filepath.Join(d.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(d.paths(file)), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(d.configPath(), []byte(d.toml()), 0o644); err != nil {
		return err
	}
	if d.config.UID == 0 {
		return nil
	}
	// The user may have no way to the binary, in a checkout of root's.
	own := filepath.Join(d.Dir, "containerd")
	if d.config.Binary != own {
		data, err := os.ReadFile(d.config.Binary)
		if err != nil {
			return err
		}
		if err := os.WriteFile(own, data, 0o755); err != nil {
			return err
		}
		d.config.Binary = own
	}
	return os.Chown(d.Dir, int(d.config.UID), int(d.config.UID))
}

// Reconfigure ends the daemon and starts one with another configuration in the same
// directory, on the same address. What Binary, Ctr, UID and Before were stays
// where the configuration leaves them out. The log goes on.
func (d *Daemon) Reconfigure(ctx context.Context, config Config) error {
	err := errors.Join(d.Client.Close(), d.end(), d.log.Close())
	d.Client = nil
	if err != nil {
		return err
	}
	old := d.config
	d.config = config
	if d.config.Binary == "" {
		d.config.Binary = old.Binary
	}
	if d.config.Ctr == "" {
		d.config.Ctr = old.Ctr
	}
	if d.config.UID == 0 {
		d.config.UID, d.config.Before = old.UID, old.Before
	}
	if err := d.writeFiles(); err != nil {
		return err
	}
	return d.start(ctx)
}
