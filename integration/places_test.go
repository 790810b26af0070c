package integration

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// places are where containerd writes by default, apart from its root and state:
// /opt/containerd, /etc/cni and the sockets of /run and /var/run.
// mount itself writes to /run, which is hidden last.
var places = []string{"/run", "/etc", "/opt", "/var"}

// A daemon of the tests, and so that of the demonstration and the benchmark, writes
// to its own directory and nowhere else. Each sees empty places of its own, so that
// all that is in them is its doing.
func TestDaemonsWriteToTheirDirectory(t *testing.T) {
	for _, place := range places {
		if strings.HasPrefix(os.TempDir()+"/", place+"/") || strings.HasPrefix(pluginBinary(t), place+"/") {
			t.Skipf("the daemon itself lives in %s, which the test hides", place)
		}
	}
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	hide := "exec \"$0\" \"$@\""
	for _, place := range places {
		hide = fmt.Sprintf("mount -n -t tmpfs none %s && %s", place, hide)
	}
	for name, config := range map[string]daemon.Config{
		"tables":                 active(everything),
		"tables of version 3":    {Disabled: daemon.Active, Version: 3},
		"whole":                  {Whole: "version = 4\n"},
		"node":                   {Node: map[string]string{"config.toml": "version = 4\n" + node4}},
		"node of version 3":      {Node: map[string]string{"config.toml": version3}},
		"stock containerd's own": {Binary: stockBinary(t), Node: map[string]string{"config.toml": defaultConfig(t, stockBinary(t))}},
	} {
		t.Run(name, func(t *testing.T) {
			config.Before = []string{"unshare", "--mount", "sh", "-c", hide}
			d := startDaemon(t, config)
			pull(t, d, reg.Host+"/app:v1")
			criPull(t, d, reg.Host+"/app:v1")
			for _, place := range places {
				// The kernel shows what the daemon sees.
				root := fmt.Sprintf("/proc/%d/root%s", d.PID(), place)
				if err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
					if path != root {
						t.Errorf("the daemon made %s", strings.TrimPrefix(path, strings.TrimSuffix(root, place)))
					}
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
