package referrers

import (
	"reflect"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// foreign has what tables of containerd's may come to hold.
type foreign struct {
	foreignBase
	Nested  foreignTable   `toml:"nested"`
	Tables  []foreignTable `toml:"tables,omitempty"`
	Wait    *duration      `toml:"wait"`
	Ratio   float64        `toml:"ratio"`
	Ports   map[string]int `toml:"ports"`
	Ignored string         `toml:"-"`
	Bare    string
}

type foreignBase struct {
	Level int `toml:"level"`
}

type foreignTable struct {
	Name string   `toml:"name"`
	Size size     `toml:"size"`
	List []string `toml:"list"`
}

func decodeForeign(t *testing.T, text string) (foreign, error) {
	t.Helper()
	var table map[string]any
	if err := toml.Unmarshal([]byte(text), &table); err != nil {
		t.Fatal(err)
	}
	got := foreign{Tables: []foreignTable{{Name: "default"}, {Name: "default too"}}, Ratio: 0.5}
	_, err := decode(table, &got)
	return got, err
}

// What is written replaces the default, and what is not leaves it.
func TestDecode(t *testing.T) {
	t.Parallel()
	got, err := decodeForeign(t, `
level = 3
wait = "5s"
ports.http = 80
nested.size = "1KiB"
[[tables]]
name = "written"
list = ["a"]
`)
	if err != nil {
		t.Fatal(err)
	}
	wait := duration(5e9)
	want := foreign{
		foreignBase: foreignBase{3}, Nested: foreignTable{Size: 1 << 10}, Tables: []foreignTable{{Name: "written", List: []string{"a"}}},
		Wait: &wait, Ratio: 0.5, Ports: map[string]int{"http": 80},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// Whatever the field, the error names the key, where it stands, and what was found.
func TestDecodeRejects(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ table, want string }{
		{"Level = 3", "unknown key Level: write one of level, nested, ports, ratio, tables, wait, or remove it"},
		{`Bare = "x"`, "unknown key Bare: write one of level, "},
		{`Ignored = "x"`, "unknown key Ignored: write one of level, "},
		{`nested.Name = "x"`, "table nested: unknown key Name: write one of list, name, size, or remove it"},
		{"nested.size = 3", `table nested: key size: "3" is no size: write a whole number and B, KiB`},
		{`nested = "x"`, `key nested = "x": write a table`},
		{"tables = [{name = \"x\"}, {NAME = \"y\"}]", "table 2: unknown key NAME: write one of list, name, size, or remove it"},
		{"tables = [{name = \"x\"}, 3]", "key tables = [map[name:x] 3]: write [[…]] tables"},
		{"tables = {name = \"x\"}", "key tables = map[name:x]: write [[…]] tables"},
		{"level = 9223372036854775807\nratio = true", "key ratio = true: "},
		{"wait = 5", `key wait = 5: toml: "5" is no duration: write a number and a unit`},
		{`ports.http = "x"`, `key ports = map[http:x]: write a table`},
		{"level = 1979-05-27", "key level = 1979-05-27: write a number"},
	} {
		t.Run(tc.table, func(t *testing.T) {
			t.Parallel()
			_, err := decodeForeign(t, tc.table)
			wantInvalid(t, err, tc.want)
		})
	}
}
