package policy

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const provenance = `{
  "builder": {"id": "https://builder.example.com/v1", "trusted": true, "nothing": null},
  "materials": ["a", 2, {"uri": "git+https://git.example.com/org/app"}],
  "level": 3, "big": 12345678901234567890, "odd/name": "x", "": "empty", "": null
}`

func check(c Condition, data string) error {
	compiled, err := compileConditions([]Condition{c})
	if err != nil {
		return err
	}
	return Requirement{where: compiled}.Check([]byte(data))
}

func TestConditions(t *testing.T) {
	t.Parallel()
	valid := strings.Replace(provenance, `, "": null`, "", 1)
	number := func(f float64) *float64 { return &f }
	flag := func(b bool) *bool { return &b }
	for _, tc := range []struct {
		name  string
		c     Condition
		holds bool
	}{
		{"equals a string", Condition{Path: "/builder/id", Equals: "https://builder.example.com/v1"}, true},
		{"equals another string", Condition{Path: "/builder/id", Equals: "https://builder.example.com"}, false},
		{"equals true", Condition{Path: "/builder/trusted", Equals: true}, true},
		{"equals false", Condition{Path: "/builder/trusted", Equals: false}, false},
		{"a boolean is no string", Condition{Path: "/builder/trusted", Equals: "true"}, false},
		{"equals a number as TOML has it", Condition{Path: "/level", Equals: int64(3)}, true},
		{"equals a fraction", Condition{Path: "/level", Equals: 3.5}, false},
		{"a number is no string", Condition{Path: "/level", Equals: "3"}, false},
		{"equals an object", Condition{Path: "/builder", Equals: "https://builder.example.com/v1"}, false},
		{"equals null", Condition{Path: "/builder/nothing", Equals: "null"}, false},
		{"one of", Condition{Path: "/level", OneOf: []any{int64(1), int64(3)}}, true},
		{"none of", Condition{Path: "/level", OneOf: []any{int64(1), "3"}}, false},
		{"matches all of it", Condition{Path: "/builder/id", Matches: `https://builder\.example\.com/.*`}, true},
		{"matches a part of it", Condition{Path: "/builder/id", Matches: `https://builder\.example\.com`}, false},
		{"matches either, anchored", Condition{Path: "/builder/id", Matches: `x|https://builder\.example\.com/v`}, false},
		{"matches no number", Condition{Path: "/level", Matches: `3`}, false},
		{"contains an element", Condition{Path: "/materials", Contains: "a"}, true},
		{"contains a number", Condition{Path: "/materials", Contains: int64(2)}, true},
		{"contains no such element", Condition{Path: "/materials", Contains: "git+https://git.example.com/org/app"}, false},
		{"contains a part", Condition{Path: "/builder/id", Contains: "example.com"}, true},
		{"contains no such part", Condition{Path: "/builder/id", Contains: "example.org"}, false},
		{"an object contains nothing", Condition{Path: "/builder", Contains: "id"}, false},
		{"an element by its index", Condition{Path: "/materials/2/uri", Matches: `git\+https://git\.example\.com/org/.+`}, true},
		{"an index with a leading zero", Condition{Path: "/materials/00", Equals: "a"}, false},
		{"an index beyond the end", Condition{Path: "/materials/3", Exists: flag(false)}, true},
		{"exists", Condition{Path: "/builder/id", Exists: flag(true)}, true},
		{"null exists", Condition{Path: "/builder/nothing", Exists: flag(true)}, true},
		{"does not exist", Condition{Path: "/nothing", Exists: flag(true)}, false},
		{"must not exist, and does not", Condition{Path: "/builder/other", Exists: flag(false)}, true},
		{"must not exist, and does", Condition{Path: "/builder/id", Exists: flag(false)}, false},
		{"within a string", Condition{Path: "/builder/id/x", Exists: flag(false)}, true},
		{"at least", Condition{Path: "/level", AtLeast: number(3)}, true},
		{"less", Condition{Path: "/level", AtLeast: number(3.1)}, false},
		{"at most", Condition{Path: "/level", AtMost: number(3)}, true},
		{"more", Condition{Path: "/level", AtMost: number(2)}, false},
		{"between", Condition{Path: "/level", AtLeast: number(1), AtMost: number(5)}, true},
		{"a string is not at least", Condition{Path: "/builder/id", AtLeast: number(0)}, false},
		{"nothing is not at most", Condition{Path: "/nothing", AtMost: number(9)}, false},
		{"a number that is not exact", Condition{Path: "/big", OneOf: []any{"12345678901234567890", int64(3)}}, false},
		{"a big number", Condition{Path: "/big", AtLeast: number(1e19)}, true},
		{"a name with a slash", Condition{Path: "/odd~1name", Equals: "x"}, true},
		{"the empty name", Condition{Path: "/", Equals: "empty"}, true},
		{"the whole", Condition{Path: "", Exists: flag(true)}, true},
		{"two operators, one holds", Condition{Path: "/builder/id", Matches: ".*", Contains: "example.org"}, false},
	} {
		if err := check(tc.c, valid); (err == nil) != tc.holds {
			t.Errorf("%s: %v, want that it holds: %v", tc.name, err, tc.holds)
		} else if err != nil && !strings.Contains(err.Error(), `"`+tc.c.Path+`" of its predicate`) {
			t.Errorf("%s: %v does not name the path", tc.name, err)
		}
	}
}

// A predicate that two readers would read in two ways meets nothing, wherever the difference
// is.
func TestPredicateThatReadsTwoWays(t *testing.T) {
	t.Parallel()
	yes := true
	for _, data := range []string{
		provenance, `{"a":1,"a":1}`, `{"a":1,"b":{"c":1,"c":2}}`, `{"a":1,"\u0061":2}`, `{"a":1}{"a":2}`, `{"a":1`, ``, "{\"a\":\"\xff\"}",
	} {
		if err := check(Condition{Path: "", Exists: &yes}, data); err == nil {
			t.Errorf("%s meets a condition", data)
		}
	}
	if err := check(Condition{Path: "/a", Equals: int64(1)}, `{"a":1}`); err != nil {
		t.Error(err)
	}
}

func TestConditionsThatAreRefused(t *testing.T) {
	t.Parallel()
	no := false
	for want, c := range map[string]Condition{
		"no JSON pointer":          {Path: "builder/id", Equals: "x"},
		"says nothing of it":       {Path: "/builder/id"},
		"can never hold":           {Path: "/a", Exists: &no, Equals: "x"},
		"no string, number":        {Path: "/a", Equals: []any{"x"}},
		"one_of: map":              {Path: "/a", OneOf: []any{map[string]any{}}},
		"missing closing ]":        {Path: "/a", Matches: "[a"},
		"~1":                       {Path: "/a~2", Equals: "x"},
		"unexpected )":             {Path: "/a", Matches: "a)|(b"},
		"too large to be compared": {Path: "/a", Equals: int64(1<<53 + 1)},
		"contains: [x]":            {Path: "/a", Contains: []any{"x"}},
		"is no JSON pointer; writ": {Path: "/" + strings.Repeat("a", maxPointer), Equals: "x"},
	} {
		if _, err := compileConditions([]Condition{c}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "where 1: ") {
			t.Errorf("%+v: %v, want an errdefs.ErrInvalidArgument with %q", c, err, want)
		}
	}
	if _, err := compileConditions(make([]Condition, maxConditions+1)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%d conditions: %v", maxConditions+1, err)
	}
}

// FuzzCondition holds the reader along a pointer against one that reads all.
func FuzzCondition(f *testing.F) {
	for _, seed := range [][2]string{{`{"a":{"b":[1,"x",{"c":true}]}}`, "/a/b/2/c"}, {`[[],{}]`, "/1"}, {`{"a~b":"x"}`, "/a~0b"}, {`{"a":1,"a":2}`, "/a"}, {`"x"`, ""}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, data, path string) {
		yes := true
		err := check(Condition{Path: path, Exists: &yes}, data)
		if errdefs.IsInvalidArgument(err) {
			return
		}
		value, ok := pointed(data, path)
		if ok != (err == nil) {
			t.Errorf("%q of %q: %v, want that it exists: %v", path, data, err, ok)
		}
		if s, isString := value.(string); ok && isString {
			if err := check(Condition{Path: path, Equals: s}, data); err != nil {
				t.Errorf("%q of %q is %q: %v", path, data, s, err)
			}
		}
	})
}
