// Package daemon starts a real containerd, with the plugin, in a temporary
// directory, and ends it without a trace.
package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// The stock plugins that the plugin replaces.
const (
	StockTransfer = "io.containerd.transfer.v1.local"
	StockService  = "io.containerd.grpc.v1.transfer"
)

// Config says how to start a daemon. The zero value is a stock containerd.
type Config struct {
	// Binary and Ctr are the programs; empty means those that were built.
	Binary, Ctr string
	// Disabled are the plugins to disable.
	Disabled []string
	// Plugin is TOML within the plugin's table.
	Plugin string
	// Whole is a configuration in place of Disabled and Plugin; where
	// the daemon lives is added to it.
	Whole string
	// Extra is TOML outside of the plugin's table.
	Extra string
	// Env is added to the daemon's environment, "KEY=value".
	Env []string
	// Version is that of the configuration; 0 means 4.
	Version int
	// Node are files of /etc/containerd, "config.toml" among them, that stand in
	// for all of the above. Paths of a node in them mean paths in Dir.
	Node map[string]string
	// UID, where it is not 0, is the ordinary user that the daemon runs as.
	UID uint32
	// Before is a program with arguments that executes the daemon.
	Before []string
	// LogLevel is the daemon's; empty means debug.
	LogLevel string
	// MayFail lets plugins fail to load.
	MayFail bool
	// NRI enables NRI, with a socket of the daemon's own: TOML within its table. Empty
	// disables it.
	NRI string
	// More is TOML for other tables.
	More string
	// Disk gives the daemon's root a file system of its own, of so many bytes;
	// 0 means none. Where nothing can be mounted Start answers ErrNoMount.
	Disk int64
}

// Active disables the stock plugins, so that the plugin is active.
var Active = []string{StockTransfer, StockService}

// Daemon is a running containerd.
type Daemon struct {
	Dir     string // temporary; root, state, log and sockets are within
	Address string
	Client  *containerd.Client

	config Config
	cmd    *exec.Cmd
	log    *os.File
	exited chan struct{}
	once   sync.Once
}

// Root says which rights a daemon lacks here, nil where it can start: it mounts
// and unpacks layers as root.
func Root() error {
	if os.Geteuid() != 0 {
		return errors.New("containerd needs root to unpack and mount layers; run this as root, for instance with sudo")
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return errors.New("containerd needs the capability CAP_SYS_ADMIN to mount layers, which this root lacks; run this outside of the container, or in one with --privileged")
	}
	return nil
}

// Mounts says why nothing can be mounted here, nil where it can: the root of a user
// namespace has every capability, and still no right to the mounts of its parent.
func Mounts() (err error) {
	dir, err := os.MkdirTemp("", "tr-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("containerd needs the right to mount layers, which root lacks in this user namespace or container (%w); run this as root outside of it", err)
	}
	return unix.Unmount(dir, unix.MNT_DETACH)
}

// bin finds a program in the directory that TRANSFER_REFERRERS_BIN names, or else
// in bin/ of the repository, above the working directory.
func bin(name string) (string, error) {
	if dir := os.Getenv("TRANSFER_REFERRERS_BIN"); dir != "" {
		return filepath.Join(dir, name), nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("bin/%s is not built; run `make build`", name)
		}
	}
}

// Start starts a daemon and waits until it serves. It fails where a plugin did
// not load that has no business not to.
func Start(ctx context.Context, config Config) (_ *Daemon, err error) {
	if err := Root(); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		path *string
		name string
	}{{&config.Binary, "containerd"}, {&config.Ctr, "ctr"}} {
		if *p.path == "" {
			if *p.path, err = bin(p.name); err != nil {
				return nil, err
			}
		}
	}
	dir, err := os.MkdirTemp(tempDir(), "tr-")
	if err != nil {
		return nil, err
	}
	d := &Daemon{Dir: dir, Address: filepath.Join(dir, "containerd.sock"), config: config}
	if err := d.writeFiles(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err = d.mountDisk(); err == nil {
		err = d.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// tempDir is where daemons live: TMPDIR, or /tmp where their sockets' paths would
// exceed the 104 bytes that containerd takes.
func tempDir() string {
	dir := os.TempDir()
	if len(filepath.Join(dir, "tr-4294967295", "containerd.sock.ttrpc")) > 104 {
		return "/tmp"
	}
	return dir
}

func (d *Daemon) configPath() string { return filepath.Join(d.Dir, "config.toml") }

func (d *Daemon) toml() string {
	if file, ok := d.config.Node["config.toml"]; ok {
		return d.node(file)
	}
	if d.config.Whole != "" {
		return fmt.Sprintf("root = %q\nstate = %q\nimports = []\n%s\n%s", filepath.Join(d.Dir, "root"), filepath.Join(d.Dir, "state"), d.config.Whole, d.sockets())
	}
	quoted := make([]string, len(d.config.Disabled))
	for i, p := range d.config.Disabled {
		quoted[i] = fmt.Sprintf("%q", p)
	}
	version := d.config.Version
	if version == 0 {
		version = 4
	}
	return fmt.Sprintf(`version = %d
root = %q
state = %q
disabled_plugins = [%s]
imports = []

[plugins."io.containerd.transfer.v1.referrers"]
%s
%s
`, version, filepath.Join(d.Dir, "root"), filepath.Join(d.Dir, "state"), strings.Join(quoted, ", "),
		d.config.Plugin, d.sockets()+d.config.Extra)
}

// sockets are the daemon's own, and so are the other places that it writes to.
func (d *Daemon) sockets() string {
	tables := strings.Join(d.own(), "") + d.config.More
	if d.config.Version == 3 {
		return tables + fmt.Sprintf("\n[grpc]\n  address = %q\n[ttrpc]\n  address = %q\n", d.Address, d.Address+".ttrpc")
	}
	return fmt.Sprintf(`[plugins."io.containerd.server.v1.grpc"]
  address = %q
[plugins."io.containerd.server.v1.ttrpc"]
  address = %q
[plugins."io.containerd.server.v1.debug"]
  address = %q
%s
`, d.Address, d.Address+".ttrpc", d.Address+".debug", tables)
}

func (d *Daemon) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(d.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	d.log = log
	level := d.config.LogLevel
	if level == "" {
		level = "debug"
	}
	line := append(slices.Clone(d.config.Before), d.config.Binary, "--config", d.configPath(), "--log-level", level)
	d.cmd = exec.Command(line[0], line[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Dir = d.Dir
	// One built with the race detector would sleep for a second at its end, for
	// goroutines that race with it.
	d.cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), d.config.Env...)
	// A test that is killed takes its daemon with it.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if d.config.UID != 0 {
		d.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: d.config.UID, Gid: d.config.UID}
	}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	d.exited = make(chan struct{})
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	if err := d.connect(ctx); err != nil {
		return err
	}
	return d.checkPlugins()
}

func (d *Daemon) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		client, err := containerd.New(d.Address, containerd.WithTimeout(time.Second), containerd.WithDefaultNamespace("default"))
		if err == nil {
			if _, err = client.Version(ctx); err == nil {
				d.Client = client
				return nil
			}
			_ = client.Close() // another try follows
		}
		select {
		case <-d.exited:
			return fmt.Errorf("containerd exited: %s", d.lastLog())
		case <-ctx.Done():
			return fmt.Errorf("containerd does not serve: %w: %s", err, d.lastLog())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// checkPlugins fails on plugins that failed to load. Those that skip themselves
// say so at another level.
func (d *Daemon) checkPlugins() error {
	if lines := d.LogLines("failed to load plugin"); len(lines) > 0 && !d.config.MayFail {
		return fmt.Errorf("a plugin did not load: %s", lines[0])
	}
	return nil
}

// Log returns the daemon's log so far.
func (d *Daemon) Log() string {
	data, err := os.ReadFile(filepath.Join(d.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// LogLines returns the lines of the log that have the substring.
func (d *Daemon) LogLines(substring string) []string {
	var out []string
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, substring) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

func (d *Daemon) lastLog() string {
	lines := strings.Split(d.Log(), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// CtrPath returns the program that Ctr runs.
func (d *Daemon) CtrPath() string { return d.config.Ctr }

// Ctr runs ctr against the daemon and returns its standard output; standard
// error is part of the error, and of the result of CtrAll.
func (d *Daemon) Ctr(ctx context.Context, args ...string) (string, error) {
	stdout, stderr, err := d.CtrAll(ctx, args...)
	if err != nil {
		return stdout, fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, stderr)
	}
	return stdout, nil
}

// CtrAll runs ctr and returns both its outputs.
func (d *Daemon) CtrAll(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, d.config.Ctr, append([]string{"--address", d.Address}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(os.Environ(), "CONTAINERD_NAMESPACE=default")
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// Stop ends the daemon and removes all that it left.
func (d *Daemon) Stop() error {
	var err error
	d.once.Do(func() {
		if d.Client != nil {
			err = d.Client.Close()
		}
		if d.cmd != nil && d.cmd.Process != nil {
			err = errors.Join(err, d.end())
		}
		if d.log != nil {
			d.log.Close()
		}
		err = errors.Join(err, unmountBelow(d.Dir), os.RemoveAll(d.Dir))
	})
	return err
}

func (d *Daemon) end() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.exited:
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
	return nil
}

// unmountBelow unmounts what a daemon that was killed left mounted.
func unmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil // not Linux; nothing is mounted
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			points = append(points, fields[1])
		}
	}
	slices.Sort(points)
	slices.Reverse(points) // what lies in another mount first
	for _, p := range points {
		err = errors.Join(err, unix.Unmount(p, unix.MNT_DETACH))
	}
	return err
}

// Status returns the label that says what is known of a subject's referrers.
func (d *Daemon) Status(ctx context.Context, subject digest.Digest) string {
	info, err := d.Client.ContentStore().Info(namespaces.WithNamespace(ctx, "default"), subject)
	if err != nil {
		return err.Error()
	}
	return info.Labels[labels.StatusKey]
}
