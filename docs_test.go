package referrers

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// The unit of each timer is in the release beside it, and runs a command that there is.
func TestTimersHaveTheirUnits(t *testing.T) {
	timers, err := filepath.Glob("release/*.timer")
	if err != nil || len(timers) == 0 {
		t.Fatalf("%d timers, %v", len(timers), err)
	}
	for _, timer := range timers {
		unit := strings.TrimSuffix(timer, ".timer") + ".service"
		for path, lines := range map[string][]string{
			timer: {"[Unit]", "[Timer]", "OnCalendar=", "RandomizedDelaySec=", "[Install]", "WantedBy=timers.target"},
			unit:  {"[Unit]", "[Service]", "Type=oneshot", "ExecStart=/usr/local/bin/ctr --namespace k8s.io referrers "},
		} {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, line := range lines {
				if !strings.Contains("\n"+string(text), "\n"+line) {
					t.Errorf("%s lacks %s", path, line)
				}
			}
		}
		if analyze, err := exec.LookPath("systemd-analyze"); err == nil {
			// What the programs of this machine are is not the unit's fault.
			if out, err := exec.Command(analyze, "verify", "--recursive-errors=no", "./"+timer).CombinedOutput(); err != nil && !strings.Contains(string(out), "is not executable") {
				t.Errorf("%s: %v: %s", timer, err, out)
			}
		}
	}
}

// Every example of a key loads, in the table that its section is about.
func TestExamplesOfKeys(t *testing.T) {
	doc, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\|.*?\\| `((?:local\\.)?\\w+ = [^`]+)` \\|")
	examples := 0
	for _, section := range regexp.MustCompile("(?m)^##+ ").Split(string(doc), -1) {
		title, text, _ := strings.Cut(section, "\n")
		for _, r := range row.FindAllStringSubmatch(text, -1) {
			examples++
			c, err := load(t, inItsTable(title, r[1], r[2]))
			if err != nil {
				t.Errorf("%s: %v", r[2], err)
				continue
			}
			for name, trusted := range c.Trust {
				if err := trusted.Check(); err != nil {
					t.Errorf("%s: trust.%s: %v", r[2], name, err)
				}
			}
		}
	}
	if examples < 35 {
		t.Fatalf("%d examples, the format of the tables has changed", examples)
	}
}

// inItsTable puts an example where its key belongs, with what it cannot do without.
func inItsTable(section, key, example string) string {
	with := func(lines map[string]string) string { // those for other keys
		for k, line := range lines {
			if k != key {
				example += "\n" + line
			}
		}
		return example
	}
	const entry = "[[rules]]\nrepositories = [\"**\"]\nverify = \"enforce\"\n[[rules.attested]]\n"
	switch section {
	case "Keys":
		return example
	case "Rules":
		needs := map[string]string{"repositories": `repositories = ["**"]`}
		switch key {
		case "verify":
			needs["signed"] = `signed = [{ by = ["release"] }]`
		case "signed", "attested":
			needs["verify"] = `verify = "enforce"`
		}
		return "[[rules]]\n" + with(needs)
	case "Verification":
		return entry + with(map[string]string{"by": `by = ["ci"]`, "predicate_type": `predicate_type = "https://slsa.dev/provenance/v1"`})
	case "Conditions":
		if key == "path" {
			example += ", exists = true"
		}
		return entry + fmt.Sprintf("by = [\"ci\"]\npredicate_type = \"x\"\nwhere = [{ %s }]\n", example)
	case "Trusts":
		needs := map[string]string{}
		switch key {
		case "trusted_root":
			needs["identities"] = `identities = [{ issuer = "i", subject = "s" }]`
		case "notation_roots":
			needs["subjects"] = `subjects = ["C=US, ST=WA, O=Vendor"]`
		case "subjects":
			needs["notation_roots"] = `notation_roots = ["/ca.pem"]`
		}
		return "[trust.x]\n" + with(needs)
	case "Identities":
		other := `, subject = "s"`
		if strings.HasPrefix(key, "subject") {
			other = `, issuer = "i"`
		}
		return "[trust.x]\ntrusted_root = [\"/root.json\"]\nidentities = [{ " + example + other + " }]\n"
	}
	return "no table is known for the section " + section
}

// Every key is in the tables of docs/configuration.md, and in docs/config.toml or
// docs/verification.toml; the tables have its default.
func TestEveryKeyIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var samples string
	for _, name := range []string{"docs/config.toml", "docs/verification.toml"} {
		sample, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		samples += string(sample)
	}
	for _, of := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[policy.Rule](),
		reflect.TypeFor[policy.Signed](), reflect.TypeFor[policy.Attested](), reflect.TypeFor[policy.Condition](),
		reflect.TypeFor[trust.Config](), reflect.TypeFor[trust.Identity](),
	} {
		for i := range of.NumField() {
			key := of.Field(i).Tag.Get("toml")
			_, row, ok := strings.Cut(string(doc), "\n| `"+key+"` |")
			if !ok {
				t.Errorf("docs/configuration.md has no row for %s", key)
				continue
			}
			row, _, _ = strings.Cut(row, "\n")
			if def, ok := defaults()[key]; ok {
				want := fmt.Sprintf("| `%v` |", def)
				if s, ok := def.(string); ok {
					want = fmt.Sprintf("| `%q` |", s)
				}
				if !strings.Contains(row, want) {
					t.Errorf("docs/configuration.md: %s has not the default %s: %s", key, want, row)
				}
			}
			if !regexp.MustCompile(`\b` + key + `\b`).MatchString(samples) {
				t.Errorf("neither docs/config.toml nor docs/verification.toml has %s", key)
			}
		}
	}
}

// The example of verification loads: its files are there, and each of its entries can be met.
func TestVerificationExample(t *testing.T) {
	text, err := os.ReadFile("docs/verification.toml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range regexp.MustCompile(`/etc/([a-z/.-]+)"`).FindAllStringSubmatch(string(text), -1) {
		path := filepath.Join(dir, name[1])
		if filepath.Ext(path) == "" { // notation's directory
			path = filepath.Join(path, "trustpolicy.json")
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name[1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var file struct {
		Plugins map[string]map[string]any `toml:"plugins"`
	}
	if err := toml.Unmarshal([]byte(strings.ReplaceAll(string(text), `"/etc/`, `"`+dir+"/")), &file); err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig(file.Plugins[pluginName])
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(c.Rules)
	if err != nil {
		t.Fatal(err)
	}
	trusts, err := trust.Open(c.Trust, anyFile{})
	if err != nil {
		t.Fatal(err)
	}
	if err := trusts.Check(rules); err != nil {
		t.Error(err)
	}
}

// anyFile makes verifiers of any files, that verify nothing.
type anyFile struct{ trust.Verifier }

func (anyFile) Kinds() []trust.Kind {
	return []trust.Kind{trust.Keys, trust.TrustedRoot, trust.Notation}
}

func (v anyFile) Load(trust.Config, []trust.File) (trust.Verifier, error) { return v, nil }

func (anyFile) Facts() trust.Facts { return trust.Facts{Identities: 1} }

// Every constant of package transfer, those below it and the verifiers that is named as a
// limit stands in the tables of docs/configuration.md, and these name no other.
func TestEveryFixedLimitIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	constant := regexp.MustCompile(`(?m)^\s*(?:const )?([mM]ax[A-Z]\w*)\s*=`)
	have := map[string]bool{}
	code := map[string]string{} // by package
	note := func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		of := filepath.Base(filepath.Dir(path))
		code[of] += string(text)
		for _, name := range constant.FindAllSubmatch(text, -1) {
			have[fmt.Sprintf("%s.%s", of, name[1])] = true
		}
		return nil
	}
	for _, below := range []string{"transfer", "verify"} {
		if err := filepath.WalkDir(below, note); err != nil {
			t.Fatal(err)
		}
	}
	for name := range have {
		if !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("docs/configuration.md, section Fixed limits, has not %s", name)
		}
	}
	for _, named := range regexp.MustCompile("`(\\w+\\.[mM]ax[A-Z]\\w*)`").FindAllStringSubmatch(string(doc), -1) {
		if !have[named[1]] {
			t.Errorf("docs/configuration.md, section Fixed limits, has %s, which is gone", named[1])
		}
	}
	_, section, _ := strings.Cut(string(doc), "\n## Fixed limits\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for row := range strings.Lines(section) {
		cells := strings.Split(strings.TrimSpace(row), "|")
		for _, named := range regexp.MustCompile("`(\\w+)\\.(\\w+)[`.]").FindAllStringSubmatch(cells[max(0, len(cells)-2)], -1) {
			if !regexp.MustCompile(`(?m)^\s*(?:const |var |func )?` + named[2] + `\b`).MatchString(code[named[1]]) {
				t.Errorf("docs/configuration.md, section Fixed limits, has %s.%s, which is gone", named[1], named[2])
			}
		}
	}
}

// Every row of docs/hostile-input.md names its tests, or the page that says why there
// is none; each is in the tree, in the package that the row names. A test that is
// named after the number of a row would tell no one what it holds.
func TestHostileInputNamesItsTests(t *testing.T) {
	doc, err := os.ReadFile("docs/hostile-input.md")
	if err != nil {
		t.Fatal(err)
	}
	have := testsOfTheTree(t)
	for name := range have {
		if numbered.MatchString(name) {
			t.Errorf("%s is named after a number, not for what it holds", name)
		}
	}
	rows := 0
	inTable := false // of tests
	for line := range strings.Lines(string(doc)) {
		switch {
		case !strings.HasPrefix(line, "| "):
			inTable = false
			continue
		case strings.HasSuffix(line, "| tests |\n"):
			inTable = true
			continue
		case !inTable || strings.HasPrefix(line, "| ---"):
			continue
		}
		rows++
		cells := strings.Split(line, " | ")
		input, tests := cells[0], cells[len(cells)-1]
		named := testName.FindAllString(tests, -1)
		if len(named) == 0 && !strings.Contains(tests, "](") {
			t.Errorf("docs/hostile-input.md: no test is named: %s", input)
		}
		for _, name := range named {
			if !have[name] {
				t.Errorf("docs/hostile-input.md: the tree has no %s: %s", name, input)
			}
		}
		if rest := testName.ReplaceAllString(tests, ""); strings.Contains(rest, "Test") || strings.Contains(rest, "Fuzz") {
			t.Errorf("docs/hostile-input.md: a test is named without its package: %s", input)
		}
	}
	if rows < 50 {
		t.Errorf("docs/hostile-input.md: %d rows with tests, the format of its tables has changed", rows)
	}
}

// What unknown means is said in the same words everywhere.
func TestUnknownIsDefinedInTheSameWords(t *testing.T) {
	const words = "what refers to it is not known in full"
	for _, page := range []string{"README.md", "docs/architecture.md", "docs/ctr.md", "docs/hostile-input.md", "docs/metrics.md", "transfer/labels/status.go"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		plain := strings.ReplaceAll(string(text), "//", "")
		if !strings.Contains(strings.Join(strings.Fields(plain), " "), words) {
			t.Errorf("%s does not say of unknown that %s", page, words)
		}
	}
}

// The pages name files that are there.
func TestDocsNameFilesOfTheTree(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md") {
		doc, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile("`([a-z_]+(?:/[a-z_]+)*/[a-z_]+\\.go)`").FindAllStringSubmatch(string(doc), -1) {
			named++
			if _, err := os.Stat(name[1]); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
	if named < 10 {
		t.Errorf("%d files named, the spelling of the pages has changed", named)
	}
}

// One version of Go is needed, whatever is built of this repository: the highest that a
// containerd asks for which one of the modules pins.
func TestOneVersionOfGo(t *testing.T) {
	var wanted string
	for _, dir := range []string{".", "cmd", "cmd/lts", "integration", "integration/fixture/generate"} {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(mod)
		switch {
		case found == nil:
			t.Errorf("%s/go.mod names no version of Go", dir)
		case wanted == "":
			wanted = string(found[1])
		case string(found[1]) != wanted:
			t.Errorf("%s/go.mod names go %s, ./go.mod %s", dir, found[1], wanted)
		}
	}
	for _, page := range []string{"README.md", "CONTRIBUTING.md"} {
		doc, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(doc), "Go "+wanted+" or later") {
			t.Errorf("%s does not say \"Go %s or later\"", page, wanted)
		}
	}
}

var (
	numbered = regexp.MustCompile(`\.TestRow\d`)
	testName = regexp.MustCompile(`\b\w+\.(?:Test|Fuzz)\w+`)
	packages = regexp.MustCompile(`(?m)^package (\w+)`)
	function = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
)

// testsOfTheTree are the tests of all modules, each with its package: "gather.TestCyclesEnd".
func testsOfTheTree(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pkg := packages.FindSubmatch(text)
		for _, f := range function.FindAllSubmatch(text, -1) {
			found[fmt.Sprintf("%s.%s", strings.TrimSuffix(string(pkg[1]), "_test"), f[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
