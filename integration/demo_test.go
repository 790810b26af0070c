package integration

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demo is the demonstration, not yet run, and the directory that it makes its own in;
// any user can run it.
func demo(t *testing.T) (cmd *exec.Cmd, temp string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tr-") // short: sockets lie below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, temp := filepath.Join(dir, "demo"), filepath.Join(dir, "tmp")
	if out, err := exec.Command("go", "build", "-o", program, "./demo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Mkdir(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, program: 0o755, temp: 0o777} {
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	cmd = exec.CommandContext(testContext(t), program)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	return cmd, temp
}

// wantNoTrace fails where the demonstration left a file, a mount or a process.
func wantNoTrace(t *testing.T, temp string) {
	t.Helper()
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("the demonstration left %s", e.Name())
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, temp) {
			t.Errorf("the demonstration left the mount %s", line)
		}
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), temp) { // else it has ended
			t.Errorf("the demonstration left the process %q", line)
		}
	}
}

// A demonstration that is interrupted cleans up as one that ends.
func TestDemoInterrupted(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			cmd, temp := demo(t)
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for ctx := testContext(t); ; { // until there is a daemon to leave behind
				if sockets, _ := filepath.Glob(temp + "/*/containerd.sock"); len(sockets) > 0 {
					break
				}
				if ctx.Err() != nil {
					t.Fatal("no daemon was started")
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Errorf("an interrupted demonstration succeeds: %s", &out)
			}
			wantNoTrace(t, temp)
		})
	}
}

// Sockets do not fit into every directory for temporary files.
func TestDaemonWithALongTMPDIR(t *testing.T) {
	for _, n := range []int{68, 69, 200} {
		parent, err := os.MkdirTemp("/tmp", "tr-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(parent) })
		temp := filepath.Join(parent, strings.Repeat("x", n-len(parent)-1))
		if err := os.Mkdir(temp, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", temp)
		d := startDaemon(t, stock)
		if below := strings.HasPrefix(d.Dir, temp); below != (n <= 68) {
			t.Errorf("with a TMPDIR of %d bytes the daemon lives in %s", n, d.Dir)
		}
	}
}

// One that is piped to head -1 has nowhere to write its second line to.
func TestDemoWhoseOutputIsClosed(t *testing.T) {
	cmd, temp := demo(t)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "$ ctr images pull ") {
		t.Errorf("the first line is %q, %v", line, err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the demonstration ends with %v", err)
	}
	wantNoTrace(t, temp)
}

// The root of a user namespace has the capabilities, and cannot mount all the same.
func TestDemoInAUserNamespace(t *testing.T) {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command(unshare, "-Ur", "true").CombinedOutput(); err != nil {
		t.Skipf("no user namespace can be made here: %v: %s", err, out)
	}
	cmd, temp := demo(t)
	cmd.Path, cmd.Args = unshare, []string{"unshare", "-Ur", cmd.Path}
	const says = "demo: containerd needs the right to mount layers, which root lacks in this user namespace or container (operation not permitted); run this as root outside of it\n"
	if out, err := cmd.CombinedOutput(); err == nil || string(out) != says {
		t.Errorf("the demonstration ends with %v, and says\n%s\nwant\n%s", err, out, says)
	}
	wantNoTrace(t, temp)
}

// Without its rights the demonstration says which it needs and stops, and make stops
// before it builds anything.
func TestDemoWithoutRights(t *testing.T) {
	user := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return cmd
	}
	bounded := func(cmd *exec.Cmd) *exec.Cmd {
		path, err := exec.LookPath("setpriv")
		if err != nil {
			t.Skip(err)
		}
		cmd.Path, cmd.Args = path, append([]string{"setpriv", "--bounding-set", "-sys_admin", cmd.Path}, cmd.Args[1:]...)
		return cmd
	}
	for name, tc := range map[string]struct {
		as   func(*exec.Cmd) *exec.Cmd
		says string
	}{
		"a user": {user, "demo: containerd needs root to unpack and mount layers; run this as root, for instance with sudo\n"},
		"root in a container": {bounded, "demo: containerd needs the capability CAP_SYS_ADMIN to mount layers, which this root lacks; " +
			"run this outside of the container, or in one with --privileged\n"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, temp := demo(t)
			cmd = tc.as(cmd)
			if out, err := cmd.CombinedOutput(); err == nil || string(out) != tc.says {
				t.Errorf("the demonstration ends with %v, and says\n%s\nwant\n%s", err, out, tc.says)
			}
			wantNoTrace(t, temp)

			makefile, err := os.Open("../Makefile")
			if err != nil {
				t.Fatal(err)
			}
			defer makefile.Close()
			// The user may have no way to the checkout.
			cmd = tc.as(exec.CommandContext(testContext(t), "make", "-f", "-", "demo", "GO=echo built"))
			cmd.Dir, cmd.Stdin = temp, makefile
			cmd.Env = append(os.Environ(), "MAKELEVEL=", "MAKEFLAGS=", "MFLAGS=") // not below the make that runs the tests
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.HasPrefix(string(out), tc.says) || strings.Contains(string(out), "built") {
				t.Errorf("make demo ends with %v, and says\n%s\nwant\n%s", err, out, tc.says)
			}
		})
	}
}
