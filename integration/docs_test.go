package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
)

// The README's configuration loads as it is.
func TestReadmeConfiguration(t *testing.T) {
	_, block, ok := strings.Cut(readDoc(t, "../README.md"), "```toml\n")
	if !ok {
		t.Fatal("the README has no configuration")
	}
	block, _, _ = strings.Cut(block, "```")
	d := startDaemon(t, daemon.Config{Whole: block})
	if n := len(d.LogLines("referrers are active")); n != 1 {
		t.Errorf("the plugin is not active: %q", d.LogLines("referrers"))
	}
}

// The README's Go is that of an example, which is run; its lines of the log are what
// daemons say; its versions are those of the modules.
func TestReadmeSays(t *testing.T) {
	readme := readDoc(t, "../README.md")
	example, err := os.ReadFile("../transfer/source/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(readme, "```go\nimport (\n")
	if !ok {
		t.Fatal("the README has no Go")
	}
	code, _, _ = strings.Cut(code, "```")
	for line := range strings.Lines(code) {
		if line = strings.TrimSpace(line); !strings.Contains(string(example), line) {
			t.Errorf("no example has the README's line %s", line)
		}
	}
	inert, active := startDaemon(t, stock), startDaemon(t, active(""))
	for d, says := range map[*daemon.Daemon]string{inert: "referrers are not active: ", active: "referrers are active: "} {
		_, line, _ := strings.Cut(readme, "\n"+says)
		line, _, _ = strings.Cut(line, "\n")
		if len(d.LogLines(says+strings.ReplaceAll(line, `"`, `\"`))) != 1 {
			t.Errorf("no daemon says what the README has: %s%s", says, line)
		}
	}
	for module, says := range map[string]string{"go.mod": "with containerd %s and later", "cmd/go.mod": "use containerd %s;", "cmd/lts/go.mod": "on %s, the LTS"} {
		text, err := os.ReadFile("../" + module)
		if err != nil {
			t.Fatal(err)
		}
		version := regexp.MustCompile(`containerd/containerd/v2 (v\S+)`).FindStringSubmatch(string(text))[1]
		if want := fmt.Sprintf(says, version); !strings.Contains(readme, want) {
			t.Errorf("the README does not say %q, of %s", want, module)
		}
	}
	for _, f := range fallbacks {
		if !strings.Contains(readme, f.name[strings.LastIndexByte(f.name, '.')+1:]) {
			t.Errorf("the README does not name CRI's key %s", f.name)
		}
	}
}

// Every file and heading that a page links to is there, in the checkout and, for
// what a release archive carries, in the archive.
func TestLinks(t *testing.T) {
	pages, _ := filepath.Glob("../docs/*.md")
	tops, _ := filepath.Glob("../*.md")
	script, err := os.ReadFile("../release/archive")
	if err != nil {
		t.Fatal(err)
	}
	shipped := regexp.MustCompile(`cp -R (.*)`).FindStringSubmatch(string(script))[1]
	for _, page := range append(pages, tops...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`).FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			linked, err := os.ReadFile(target)
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if m[2] != "" && !strings.Contains(headings(string(linked)), "#"+m[2]+"\n") {
				t.Errorf("%s: %s has no heading %s", page, target, m[2])
			}
			if name := strings.TrimPrefix(target, "../"); !strings.HasPrefix(name, "docs/") && !strings.Contains(" "+shipped+" ", " "+name+" ") {
				t.Errorf("%s: a release archive lacks %s", page, name)
			}
		}
	}
}

// headings are the anchors of a page, one a line.
func headings(text string) string {
	var out strings.Builder
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		h := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out.WriteString("#" + strings.ReplaceAll(h, " ", "-") + "\n")
	}
	return out.String()
}
