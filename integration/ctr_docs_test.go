package integration

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

var update = flag.Bool("update", false, "write what the commands print into docs/ctr.md")

// docsHost stands for the registry, with as many characters as its address has.
const docsHost = "reg.example.com"

// docsMirror stands for the registry that is pushed to.
const docsMirror = "mirror.example.com"

// What docs/ctr.md shows of the commands is what they print.
func TestCtrDocs(t *testing.T) {
	const path = "../docs/ctr.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	mirror := startRegistry(t, registry.Olareg)
	toDocs := strings.NewReplacer(reg.Host, docsHost, mirror.Host, docsMirror)
	toTest := strings.NewReplacer(docsHost, reg.Host, docsMirror, mirror.Host)
	imageAlone(f, t, reg)
	d := startDaemon(t, active(trusting(t, "team", fixture.CosignKey)+
		strings.ReplaceAll(rule(`artifact_types = ["signatures", "attestations", "sboms"]`), `"**"`, `"**/app"`)+
		strings.ReplaceAll(strings.ReplaceAll(verifying(`verify = "enforce"`), `"**"`, `"**/release"`), `"release"`, `"team"`)))
	pull(t, d, reg.Host+"/app:v1")
	signed, code, ran := false, 0, map[string]bool{}
	run := func(command string) string {
		if command == "echo $?" {
			return fmt.Sprintln(code)
		}
		args := strings.Fields(toTest.Replace(command))
		if len(args) < 3 || args[0] != "ctr" || args[1] != "referrers" {
			t.Fatalf("%q is no command that this test runs", command)
		}
		if args[2] == "push" && !ran["push"] {
			pull(t, d, reg.Host+"/app:v1", "--platform", "linux/arm64")
		}
		if args[2] == "verify" && !ran["verify"] {
			if err := f.Push(testContext(t), reg, "release", "v1"); err != nil {
				t.Fatal(err)
			}
			pull(t, d, reg.Host+"/release:v1")
		}
		ran[args[2]] = true
		if args[2] == "fetch" && !signed {
			signed = true
			if err := f.PushReferrers(testContext(t), reg, "app"); err != nil {
				t.Fatal(err)
			}
		}
		r := runCtr(t, d, args[1:]...)
		code = r.code
		if r.stdout != "" && !strings.HasSuffix(r.stdout, "\n") { // of a blob that cat prints
			r.stdout += "\n"
		}
		return toDocs.Replace(r.stdout + r.stderr)
	}
	written := regexp.MustCompile("(?s)```console\n.*?```\n").ReplaceAllStringFunc(string(text), func(block string) string {
		out := "```console\n"
		for line := range strings.Lines(block) {
			if command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ "); ok {
				out += line + run(command)
			}
		}
		return out + "```\n"
	})
	for _, command := range referrersCommands {
		if !ran[command] {
			t.Errorf("the page does not show %s", command)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(written), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, want := strings.Split(docsNormal(written), "\n"), strings.Split(docsNormal(string(text)), "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("from line %d on the page differs from what the commands print, which `go test -run TestCtrDocs -update` writes:\n%s\nand the page\n%s",
				i+1, strings.Join(got[min(i, len(got)):], "\n"), strings.Join(want[min(i, len(want)):], "\n"))
		}
	}
}

// docsNormal leaves out times, and spaces between columns.
func docsNormal(s string) string {
	for pattern, with := range map[string]string{
		`(less than a|about a|an|\d+) (second|minute)s? ago`: "TIME ago",
		`\(\d+m?\d*s ago\)`:         "(TIME ago)",
		`"checked": "[^"]*"`:        `"checked": "TIME"`,
		` +`:                        " ",
		`asked reg.example.com:\d+`: "asked reg.example.com",
	} {
		s = regexp.MustCompile(pattern).ReplaceAllString(s, with)
	}
	return s
}

// trusting is a trust of the name, in a public key.
func trusting(t *testing.T, name string, key []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".pub")
	if err := os.WriteFile(path, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
  [plugins."io.containerd.transfer.v1.referrers".trust.%s]
    keys = [%q]
`, name, path)
}
