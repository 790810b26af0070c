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
	connections int
	bytes       int64 // of answers' bodies
	peak        int64 // the daemon's resident memory, bytes
}

// round has the contender pull the image once, with nothing of it on the node
// unless the scene says so.
func round(ctx context.Context, c *contender, st *stage) (sample, error) {
	if err := remove(ctx, c.daemon, st); err != nil {
		return sample{}, err
	}
	if st.again {
		if err := c.pull(ctx, c.daemon, st); err != nil {
			return sample{}, err
		}
	}
	st.reg.Reset()
	if err := resetPeak(c.daemon); err != nil {
		return sample{}, err
	}
	began := time.Now()
	err := c.pull(ctx, c.daemon, st)
	s := sample{time: time.Since(began)}
	if err != nil {
		return s, err
	}
	if s.peak, err = peak(c.daemon); err != nil {
		return s, err
	}
	requests := st.reg.Requests()
	s.requests, s.connections = len(requests), st.reg.Connections()
	for _, r := range requests {
		s.bytes += r.Bytes
	}
	return s, check(ctx, c, st, requests)
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
	err := d.Client.ImageService().Delete(ctx, st.img.ref, images.SynchronousDelete())
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
