//go:build linux

package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// onTerminal runs `ctr referrers` on a terminal and returns what that shows.
func onTerminal(t *testing.T, d *daemon.Daemon, args ...string) string {
	t.Helper()
	return ctrOnTerminal(t, d, append([]string{"referrers"}, args...)...)
}

// ctrOnTerminal runs ctr on a terminal and returns what that shows.
func ctrOnTerminal(t *testing.T, d *daemon.Daemon, args ...string) string {
	t.Helper()
	// Not blocking, so that closing ends a read.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	defer master.Close()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string, 1)
	go func() {
		data, _ := io.ReadAll(master) // ends in EIO once no one has the slave open
		shown <- string(data)
	}()
	cmd := exec.CommandContext(testContext(t), d.CtrPath(), append([]string{"--address", d.Address, "-n", "default"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	err = cmd.Run()
	slave.Close()
	out := <-shown
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return out
}

// On a terminal a fetch shows its progress as a pull does, and cat nothing that would
// steer the terminal; elsewhere neither is in the way.
func TestTerminal(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	imageAlone(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(everything))
	pull(t, d, image)
	text := "\x1b]0;title\x07plain\n"
	evil, err := reg.Attach(testContext(t), "app", f.Get(fixture.Image), "application/vnd.example.evil", nil, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out := onTerminal(t, d, "fetch", image)
	for _, want := range []string{"etch", "referrers of OCI Registry (" + image, "elapsed:", "take  " + evil.Digest.String(), "1 referrer is taken"} {
		if !strings.Contains(out, want) {
			t.Errorf("the terminal does not show %q but\n%q", want, out)
		}
	}
	if got := referrers(t, d, "fetch", image).want(t, 0).stdout; strings.Contains(got, "elapsed:") || strings.Contains(got, "\x1b") {
		t.Errorf("into a pipe it prints %q", got)
	}
	if got := onTerminal(t, d, "cat", image, evil.Digest.String()); !strings.Contains(got, "?]0;title?plain\r\n") {
		t.Errorf("the terminal shows %q", got)
	}
	if got := referrers(t, d, "cat", image, evil.Digest.String()).want(t, 0).stdout; got != text {
		t.Errorf("into a pipe it prints %q", got)
	}
}
