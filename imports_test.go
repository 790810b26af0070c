package referrers

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/transfer-referrers/transfer-referrers"

// layer says what a package may import of this module.
type layer struct {
	imports []string // packages of transfer, or "api"
	http    bool     // it speaks HTTP itself
}

// The layers of docs/architecture.md, section "Packages": facts, values, the store and the
// registry, work, operations.
var (
	facts  = []string{"artifact", "labels", "evidence"}
	values = append([]string{"policy", "outcome", "verdict"}, facts...)
	asking = append([]string{"registry"}, values...)
	store  = append([]string{"stored"}, values...)

	layers = map[string]layer{
		"artifact": {},
		"labels":   {},
		"evidence": {imports: []string{"artifact"}},
		"policy":   {imports: facts},
		"outcome":  {imports: append([]string{"policy"}, facts...)},
		"verdict":  {imports: append([]string{"policy", "outcome"}, facts...)},

		"trust": {imports: []string{"policy", "evidence"}},
		"judge": {imports: append([]string{"trust", "stored"}, values...)},
		"gate":  {imports: append([]string{"judge", "stored"}, values...)},

		"stored":   {imports: values},
		"registry": {imports: append([]string{"outcome"}, facts...), http: true},
		"source":   {imports: append([]string{"registry", "outcome", "api"}, facts...), http: true},

		"ahead":   {imports: facts},
		"gather":  {imports: append(slices.Clone(asking), "stored")},
		"push":    {imports: append(slices.Clone(asking), "stored"), http: true},
		"archive": {imports: store},
		"explain": {imports: append([]string{"api"}, values...)},
		"metrics": {imports: append([]string{"registry"}, values...)},

		"transfer": {imports: append([]string{"source", "gather", "push", "archive", "explain", "metrics", "stored", "ahead", "judge", "trust", "api"}, asking...)},
		"service":  {imports: []string{"source", "archive"}},
		"plugin":   {imports: append([]string{"transfer", "service", "gather", "metrics", "trust", "judge", "gate"}, values...), http: true},

		"api":                {},
		"internal/hostile":   {http: true},
		"internal/storetest": {},
	}
)

// listedPackage is what `go list -json` says of a package.
type listedPackage struct {
	ImportPath string
	Imports    []string // not those of its tests
}

// name is the package's in layers.
func (p listedPackage) name() string { return layerName(p.ImportPath) }

func layerName(path string) string {
	switch {
	case path == module:
		return "plugin"
	case path == module+"/transfer":
		return "transfer"
	case strings.HasPrefix(path, module+"/transfer/"):
		return strings.TrimPrefix(path, module+"/transfer/")
	case strings.HasPrefix(path, module+"/api/"):
		return "api"
	}
	return strings.TrimPrefix(path, module+"/")
}

// forbidden names each import that the layers do not allow.
func forbidden(packages []listedPackage) []string {
	var out []string
	for _, p := range packages {
		l, ok := layers[p.name()]
		if !ok {
			out = append(out, fmt.Sprintf("package %s has no layer: give it one here and in docs/architecture.md", p.name()))
			continue
		}
		for _, path := range p.Imports {
			switch {
			case path == "net/http" && !l.http:
				out = append(out, fmt.Sprintf("%s imports net/http", p.name()))
			case path != module && !strings.HasPrefix(path, module+"/"):
			case !slices.Contains(l.imports, layerName(path)):
				out = append(out, fmt.Sprintf("%s imports %s", p.name(), layerName(path)))
			}
		}
	}
	return out
}

// Imports point down: facts know nothing of values, values nothing of work, and what reads
// the store nothing of HTTP.
func TestImportsPointDown(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	data, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	var packages []listedPackage
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(data))); dec.More(); {
		var p listedPackage
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
		seen[p.name()] = true
	}
	for name := range layers {
		if !seen[name] {
			t.Errorf("there is no package %s: take it out of the layers", name)
		}
	}
	for _, edge := range forbidden(packages) {
		t.Error(edge)
	}
}

func TestForbiddenImportsAreNamed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ from, to, want string }{
		{"/transfer/artifact", "/transfer/policy", "artifact imports policy"},
		{"/transfer/labels", "/transfer/artifact", "labels imports artifact"},
		{"/transfer/policy", "/transfer/outcome", "policy imports outcome"},
		{"/transfer/stored", "/transfer/registry", "stored imports registry"},
		{"/transfer/registry", "/transfer/source", "registry imports source"},
		{"/transfer/gather", "/transfer/source", "gather imports source"},
		{"/transfer/gather", "/transfer", "gather imports transfer"},
		{"/transfer/archive", "/transfer/gather", "archive imports gather"},
		{"/transfer/push", "/transfer/archive", "push imports archive"},
		{"/transfer", "/transfer/service", "transfer imports service"},
		{"/transfer/service", "/transfer", "service imports transfer"},
		{"/transfer/gather", "/transfer/internal/hostile", "gather imports internal/hostile"},
		{"/transfer/outcome", "/api/transferreferrers/v1", "outcome imports api"},
		{"/transfer/new", "", "package new has no layer: give it one here and in docs/architecture.md"},
		{"/transfer/gather", "/transfer/stored", ""},
	} {
		var want []string
		if tc.want != "" {
			want = []string{tc.want}
		}
		p := listedPackage{ImportPath: module + tc.from, Imports: []string{"fmt", module + tc.to}}
		if got := forbidden([]listedPackage{p}); !slices.Equal(got, want) {
			t.Errorf("%s imports %s: %q, want %q", tc.from, tc.to, got, want)
		}
	}
	for _, name := range []string{"artifact", "stored", "gather"} {
		p := listedPackage{ImportPath: module + "/transfer/" + name, Imports: []string{"net/http"}}
		if got := forbidden([]listedPackage{p}); !slices.Equal(got, []string{name + " imports net/http"}) {
			t.Errorf("%s with net/http: %q", name, got)
		}
	}
}
