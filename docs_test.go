package referrers

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Every example of a key loads.
func TestExamplesOfKeys(t *testing.T) {
	doc, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\|.*?\\| `((?:local\\.)?\\w+ = [^`]+)` \\|").FindAllStringSubmatch(string(doc), -1)
	if len(rows) < 15 {
		t.Fatalf("%d examples, the format of the tables has changed", len(rows))
	}
	top := reflect.TypeFor[Config]()
	for _, row := range rows {
		text := row[2]
		if _, ok := fieldOf(top, row[1]); !ok {
			text = "[[rules]]\n" + text
			if row[1] != "repositories" {
				text += "\nrepositories = [\"**\"]"
			}
		}
		if _, err := load(t, text); err != nil {
			t.Errorf("%s: %v", row[2], err)
		}
	}
}

func fieldOf(of reflect.Type, key string) (reflect.StructField, bool) {
	for i := range of.NumField() {
		if f := of.Field(i); f.Tag.Get("toml") == key {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// Every key is in the tables of docs/configuration.md, and in docs/config.toml;
// the tables have its default.
func TestEveryKeyIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	sample, err := os.ReadFile("docs/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[policy.Rule]()} {
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
			if !strings.Contains(string(sample), key) {
				t.Errorf("docs/config.toml has no %s", key)
			}
		}
	}
}
