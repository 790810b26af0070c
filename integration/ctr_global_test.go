package integration

import (
	"path/filepath"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

var referrersCommands = []string{"ls", "fetch", "cat", "explain", "push", "verify", "inventory"}

// The flags that come before the command, namespace and address, hold for all.
func TestReferrersNamespaceAndAddress(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	imageAlone(f, t, reg)
	image := reg.Host + "/app:v1"
	d := startDaemon(t, active(everything))
	runCtr(t, d, "-n", "k8s.io", "images", "pull", "--platform", "linux/amd64", image).want(t, 0)
	if err := f.PushReferrers(testContext(t), reg, "app"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ls"}, {"fetch"}, {"cat", "--artifact-type", "sboms"}} {
		referrers(t, d, append(args, image)...).want(t, exitError, "image "+image+" is in namespace k8s.io, not in default", "-n k8s.io")
	}
	runCtr(t, d, "-n", "k8s.io", "referrers", "fetch", image).want(t, 0)
	runCtr(t, d, "-n", "k8s.io", "referrers", "ls", image).want(t, 0).prints(t, "application/spdx+json")
	runCtr(t, d, "-n", "k8s.io", "referrers", "cat", "--artifact-type", "sboms", image).want(t, 0).prints(t, "spdx")
	runCtr(t, d, "-n", "k8s.io", "referrers", "explain", image).want(t, 0).prints(t, "a pull would succeed")
	referrers(t, d, "ls").want(t, 0)
	none := filepath.Join(t.TempDir(), "none.sock")
	for _, command := range referrersCommands {
		args := []string{"--address", none, "referrers", command, image}
		if command == "inventory" { // which is of all images
			args = args[:len(args)-1]
		}
		runCtr(t, d, args...).want(t, exitError, none)
	}
}

// Every command's help has examples and exit codes, and the shell completes them.
func TestReferrersHelpAndCompletion(t *testing.T) {
	d := startDaemon(t, stock)
	for _, command := range referrersCommands {
		referrers(t, d, command, "--help").want(t, 0).prints(t, "Examples:", "ctr referrers "+command, "Exit codes:", "OPTIONS:")
		referrers(t, d, command, "-", "--generate-shell-completion").want(t, 0).prints(t, "--help")
	}
	completion := referrers(t, d, "--generate-shell-completion").want(t, 0)
	for _, command := range referrersCommands {
		completion.prints(t, command+":")
	}
	runCtr(t, d, "--generate-shell-completion").want(t, 0).prints(t, "referrers:")
	// With none named the commands are listed.
	referrers(t, d).want(t, 0).prints(t, referrersCommands...)
}
