package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// sample is what one pull cost.
type sample struct {
	time        time.Duration
	requests    int
	http2       int   // of the requests
	connections int   // that were opened
	bytes       int64 // of answers' bodies
	peak        int64 // the daemon's resident memory, bytes
}

// round has the contender pull the image once from a registry behind a link of its own,
// onto a node that has nothing unless the scene says so.
func round(ctx context.Context, c *contender, st *stage) (s sample, err error) {
	err = st.visit(ctx, c, func() error {
		if err := resetPeak(c.daemon); err != nil {
			return err
		}
		opened := len(st.link.Connections())
		st.reg.Reset()
		began := time.Now()
		if err := c.pull(ctx, c.daemon, st); err != nil {
			return err
		}
		s.time = time.Since(began)
		s.connections = len(st.link.Connections()) - opened
		requests := st.reg.Requests()
		for _, r := range requests {
			s.bytes += r.Bytes
			if r.Proto == "HTTP/2.0" {
				s.http2++
			}
		}
		s.requests = len(requests)
		if s.peak, err = peak(c.daemon); err != nil {
			return err
		}
		return check(ctx, c, st, requests)
	})
	return s, err
}

// visit calls pull with the registry behind a new link, once the daemon has done what
// the scene asks for. It leaves nothing in the daemon.
func (st *stage) visit(ctx context.Context, c *contender, pull func() error) (err error) {
	if err := st.connect(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.disconnect()) }()
	if err := st.prepare(ctx, c); err != nil {
		return err
	}
	return errors.Join(pull(), remove(ctx, c.daemon, st))
}

// prepare has the daemon do what it is to have done before.
func (st *stage) prepare(ctx context.Context, c *contender) error {
	if err := remove(ctx, c.daemon, st); err != nil {
		return err
	}
	switch st.before {
	case other:
		if err := c.pull(ctx, c.daemon, st.of(st.other)); err != nil {
			return err
		}
		return remove(ctx, c.daemon, st.of(st.other))
	case same, restarted:
		if err := c.pull(ctx, c.daemon, st); err != nil {
			return err
		}
	}
	if st.before != restarted {
		return nil
	}
	if err := c.daemon.Kill(); err != nil {
		return err
	}
	if err := c.daemon.Restart(ctx); err != nil {
		return err
	}
	_, err := stored(ctx, c.daemon) // and the new client is connected
	return err
}

// check fails where a contender did not bring what it is there for.
func check(ctx context.Context, c *contender, st *stage, requests []registry.Request) error {
	have, err := stored(ctx, c.daemon)
	if err != nil {
		return err
	}
	for _, dgst := range []digest.Digest{st.img.index.Digest, st.img.manifest.Digest} {
		if !have[dgst] {
			return fmt.Errorf("%s: %s of the image is not stored", c.key, dgst)
		}
	}
	switch {
	case c.files:
		files, err := filepath.Glob(st.files() + "/*.json")
		if err == nil && len(files) != len(st.img.blobs) {
			err = fmt.Errorf("%s: %d referrers were brought, want %d", c.key, len(files), len(st.img.blobs))
		}
		return err
	case c.referrers:
		for i, r := range st.img.referrers {
			if !have[r.Digest] || !have[st.img.blobs[i]] {
				return fmt.Errorf("%s: referrer %s or its blob is not stored: %v", c.key, r.Digest, requests)
			}
		}
	}
	return nil
}

// remove takes the image away and fails where any content or snapshot stays.
func remove(ctx context.Context, d *daemon.Daemon, st *stage) error {
	err := d.Client.ImageService().Delete(ctx, st.ref(), images.SynchronousDelete())
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	left, err := stored(ctx, d)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d blobs stay after the image was removed", len(left))
	}
	return errors.Join(err, os.RemoveAll(st.files()), os.MkdirAll(st.files(), 0o755))
}

func stored(ctx context.Context, d *daemon.Daemon) (map[digest.Digest]bool, error) {
	have := map[digest.Digest]bool{}
	return have, d.Client.ContentStore().Walk(ctx, func(info content.Info) error {
		have[info.Digest] = true
		return nil
	})
}

// resetPeak has the kernel forget the peak of resident memory (proc(5),
// clear_refs).
func resetPeak(d *daemon.Daemon) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.PID()), []byte("5"), 0)
}

// peak returns the peak of resident memory since the reset, in bytes.
func peak(d *daemon.Daemon) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("the kernel does not tell VmHWM")
}
