package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Kill ends the daemon with SIGKILL, as a crash does, and waits until it is gone.
// What it stored stays, for Restart.
func (d *Daemon) Kill() error {
	if err := d.cmd.Process.Kill(); err != nil {
		return err
	}
	<-d.exited
	d.log.Close()
	client := d.Client
	d.Client = nil
	return client.Close()
}

// Restart starts a daemon that was killed again, on what it stored. The Client is a
// new one, and so is the log; the error tells of a race or panic in the old one.
func (d *Daemon) Restart(ctx context.Context) error {
	for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if len(d.LogLines(sign)) > 0 {
			return fmt.Errorf("%s in the daemon that was killed: %s", sign, d.lastLog())
		}
	}
	if err := os.Truncate(filepath.Join(d.Dir, "log"), 0); err != nil {
		return err
	}
	return d.start(ctx)
}

// PID is the process of the daemon.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Root is where the daemon stores what outlives it.
func (d *Daemon) Root() string { return filepath.Join(d.Dir, "root") }

// mountDisk gives the daemon a disk of its own, of config.Disk bytes.
func (d *Daemon) mountDisk() error {
	if d.config.Disk == 0 {
		return nil
	}
	if err := unix.Mkdir(d.Root(), 0o711); err != nil {
		return err
	}
	if err := unix.Mount("disk", d.Root(), "tmpfs", 0, fmt.Sprintf("size=%d,mode=711", d.config.Disk)); err != nil {
		return fmt.Errorf("mount a tmpfs of %d bytes on %s: %w: %w", d.config.Disk, d.Root(), ErrNoMount, err)
	}
	return nil
}

// ErrNoMount says that nothing can be mounted here.
var ErrNoMount = errors.New("no rights to mount")

// Freeze makes the content store read-only while the daemon runs, until the
// returned function is called.
func (d *Daemon) Freeze() (thaw func() error, err error) {
	store := filepath.Join(d.Root(), "io.containerd.content.v1.content")
	if err := unix.Mount(store, store, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("bind %s to itself: %w: %w", store, ErrNoMount, err)
	}
	if err := unix.Mount("", store, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return nil, fmt.Errorf("make %s read-only: %w", store, errors.Join(err, unix.Unmount(store, unix.MNT_DETACH)))
	}
	return func() error { return unix.Unmount(store, unix.MNT_DETACH) }, nil
}
