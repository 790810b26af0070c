package daemon

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a daemon holds.
type Usage struct {
	Goroutines int
	OpenFiles  int
	Resident   int // KiB of memory
}

func (u Usage) String() string {
	return fmt.Sprintf("%d goroutines, %d open files, %d KiB resident", u.Goroutines, u.OpenFiles, u.Resident)
}

// Usage returns what the daemon holds now, from its debug socket and /proc.
func (d *Daemon) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	profile, err := d.goroutines(ctx, 1)
	if err != nil {
		return u, err
	}
	if _, err := fmt.Sscanf(profile, "goroutine profile: total %d", &u.Goroutines); err != nil {
		return u, fmt.Errorf("goroutine profile begins with %.40q: %w", profile, err)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
	if err != nil {
		return u, err
	}
	u.OpenFiles = len(files)
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		return u, err
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			_, err = fmt.Sscan(value, &u.Resident)
		}
	}
	return u, err
}

// Goroutines returns the stacks of the daemon's goroutines.
func (d *Daemon) Goroutines(ctx context.Context) (string, error) { return d.goroutines(ctx, 2) }

func (d *Daemon) goroutines(ctx context.Context, detail int) (string, error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.Address+".debug")
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://debug/debug/pprof/goroutine?debug=%d", detail), nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return string(data), err
}

// CPU returns how much time the daemon, and the processes that it waited for, have spent
// on the CPU since it started.
func (d *Daemon) CPU() (time.Duration, error) {
	path := fmt.Sprintf("/proc/%d/stat", d.PID())
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// proc_pid_stat(5): the name, field 2, may hold anything; utime, stime, cutime and
	// cstime are the fields 14 to 17, in hundredths of a second.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 15 {
		return 0, fmt.Errorf("%s has too few fields: %s", path, stat)
	}
	var ticks int64
	for _, field := range fields[11:15] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil
}
