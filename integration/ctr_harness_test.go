package integration

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
)

// What `ctr referrers` exits with, as its help says.
const (
	exitError     = 1
	exitUsage     = 2
	exitNone      = 3
	exitUnknown   = 4
	exitAmbiguous = 5
	exitRefused   = 6
)

// ran is what a run of `ctr referrers` came to.
type ran struct {
	stdout, stderr string
	code           int
}

// referrers runs `ctr referrers`.
func referrers(t *testing.T, d *daemon.Daemon, args ...string) ran {
	t.Helper()
	return runCtr(t, d, append([]string{"referrers"}, args...)...)
}

func runCtr(t *testing.T, d *daemon.Daemon, args ...string) ran {
	t.Helper()
	stdout, stderr, err := d.CtrAll(testContext(t), args...)
	r := ran{stdout: stdout}
	for line := range strings.Lines(stderr) {
		if !strings.Contains(line, "DEPRECATION: ") { // of this machine's
			r.stderr += line
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return r
}

// want fails where the run ended otherwise, or its standard error lacks a text.
func (r ran) want(t *testing.T, code int, says ...string) ran {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; it printed\n%s\nand on standard error\n%s", r.code, code, r.stdout, r.stderr)
	}
	if code == 0 && r.stderr != "" {
		t.Errorf("standard error: %s", r.stderr)
	}
	if code != 0 && strings.Count("\n"+r.stderr, "\nctr: ") != 1 {
		t.Errorf("standard error has not one line of ctr's: %q", r.stderr)
	}
	for _, text := range says {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("standard error lacks %q: %s", text, r.stderr)
		}
	}
	return r
}

// prints fails where standard output lacks a text.
func (r ran) prints(t *testing.T, texts ...string) ran {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.stdout, text) {
			t.Errorf("it does not print %q but\n%s", text, r.stdout)
		}
	}
	return r
}
