package integration

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// What the README prints of the demonstration is what it prints.
func TestReadmeDemo(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(readme), "$ make demo\n")
	if !ok {
		t.Fatal("the README does not run make demo")
	}
	if line := strings.Count(string(readme[:strings.Index(string(readme), "$ make demo")]), "\n") + 1; line > 30 {
		t.Errorf("the quick start begins on line %d, after line 30", line)
	}
	want, _, _ := strings.Cut(block, "```")
	cmd, temp := demo(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantNoTrace(t, temp)
	if got, want := normal(string(out)), normal(want); got != want {
		t.Errorf("the demonstration prints\n%s\nand the README\n%s", got, want)
	}
}

// normal leaves out what differs between runs: ports, times and sizes in time.
// ctr's line says "Pulling" where the daemon's answer overtakes the stream that
// carries its last progress message.
func normal(s string) string {
	for pattern, with := range map[string]string{
		`127\.0\.0\.1:\d+`: "127.0.0.1:PORT",
		`checked .* ago`:   "checked TIME",
		`elapsed:.*`:       "elapsed",
		`Pulling from`:     "Completed pull from",
	} {
		s = regexp.MustCompile(pattern).ReplaceAllString(s, with)
	}
	return strings.TrimSpace(s)
}

// The sample configuration loads, as it is but for where the daemon lives.
func TestSampleConfiguration(t *testing.T) {
	sample, err := os.ReadFile("../docs/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, daemon.Config{Whole: string(sample)})
	if lines := d.LogLines("referrers are active"); len(lines) != 1 {
		t.Errorf("the plugin is not active: %q", d.LogLines("referrers"))
	}
}

// The README's excerpt of an explanation is in the words of the command.
func TestReadmeExplain(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "whether a pull takes it and why:\n\n```\n")
	block, _, _ = strings.Cut(block, "```")
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	d := startDaemon(t, active(strings.ReplaceAll(rule(`artifact_types = ["signatures", "attestations", "sboms"]`, `required = ["signatures"]`), `"**"`, `"**/app"`)))
	out, err := d.Ctr(testContext(t), "referrers", "explain", "--plain-http", "--platform", "linux/amd64", reg.Host+"/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	out = strings.ReplaceAll(out, reg.Host, "registry.example.com")
	for line := range strings.Lines(block) {
		if !strings.Contains(out, line) {
			t.Errorf("the command does not print %q but\n%s", line, out)
		}
	}
}
