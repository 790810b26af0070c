package policy

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// Condition is one of a predicate: the value at a place, and what must be true of it. Of
// several operators all must hold.
type Condition struct {
	// Path is a JSON pointer (RFC 6901) into the predicate, "/runDetails/builder/id"; "" is
	// the predicate itself.
	Path string `toml:"path"`
	// Equals is the value itself: a string, a number, or true or false.
	Equals any `toml:"equals"`
	// OneOf are values of which it must be one.
	OneOf []any `toml:"one_of"`
	// Matches is an RE2 expression that must match all of a string.
	Matches string `toml:"matches"`
	// Contains is an element of an array, or a part of a string.
	Contains any `toml:"contains"`
	// Exists says whether there must be a value at all, null included.
	Exists *bool `toml:"exists"`
	// AtLeast and AtMost bound a number.
	AtLeast *float64 `toml:"at_least"`
	AtMost  *float64 `toml:"at_most"`
}

const (
	// maxConditions is how many conditions an entry may have.
	maxConditions = 32
	// maxPointer is how many bytes a path may have.
	maxPointer = 1 << 10
	// maxExact is up to where a number is compared exactly.
	maxExact = 1 << 53
	// maxQuoted is how many bytes of a value of a predicate a reason shows.
	maxQuoted = 80
)

// condition is a Condition that can be evaluated.
type condition struct {
	Condition
	path    jsontext.Pointer
	matches *regexp.Regexp
}

func compileConditions(list []Condition) ([]condition, error) {
	if len(list) > maxConditions {
		return nil, invalid("where", fmt.Sprintf("has %d conditions", len(list)), fmt.Sprintf("write %d at most", maxConditions))
	}
	var out []condition
	for i, c := range list {
		compiled, err := compileCondition(c)
		if err != nil {
			return nil, fmt.Errorf("where %d: %w", i+1, err)
		}
		out = append(out, compiled)
	}
	return out, nil
}

func compileCondition(c Condition) (condition, error) {
	out := condition{Condition: c, path: jsontext.Pointer(c.Path)}
	switch {
	case !out.path.IsValid() || len(c.Path) > maxPointer:
		return condition{}, invalid("path", fmt.Sprintf("%.80q is no JSON pointer", c.Path), `write "/runDetails/builder/id"; "~1" stands for a slash in a name, "~0" for "~"`)
	case c.Equals == nil && len(c.OneOf) == 0 && c.Matches == "" && c.Contains == nil && c.Exists == nil && c.AtLeast == nil && c.AtMost == nil:
		return condition{}, invalid("where", "has a path and says nothing of it", "add equals, one_of, matches, contains, exists, at_least or at_most")
	case isNaN(c.AtLeast) || isNaN(c.AtMost):
		return condition{}, invalid("at_least", "or at_most is nan, which every number passes", "write a number")
	case c.Exists != nil && !*c.Exists && (c.Equals != nil || len(c.OneOf) > 0 || c.Matches != "" || c.Contains != nil || c.AtLeast != nil || c.AtMost != nil):
		return condition{}, invalid("exists", "is false beside another operator, which can never hold", "leave one of them out")
	}
	for key, values := range map[string][]any{"equals": {c.Equals}, "one_of": c.OneOf, "contains": {c.Contains}} {
		for _, v := range values {
			written, ok := scalar(v)
			if !ok && v != nil {
				return condition{}, invalid(key, fmt.Sprintf("%v is no string, number or boolean", v), "write one, or point at what lies within")
			}
			if number, isNumber := written.(float64); isNumber && !(math.Abs(number) < maxExact) {
				return condition{}, invalid(key, fmt.Sprintf("%v is too large to be compared exactly", v), "write at_least or at_most")
			}
		}
	}
	if c.Matches != "" {
		re, err := regexp.Compile(c.Matches)
		if err != nil {
			return condition{}, invalid("matches", err.Error(), "write an RE2 expression, in TOML with single quotes")
		}
		out.matches = regexp.MustCompile(`\A(?:` + re.String() + `)\z`)
	}
	return out, nil
}

func isNaN(bound *float64) bool { return bound != nil && math.IsNaN(*bound) }

// Check reports whether all conditions of the requirement hold of a signed predicate. The
// error names the first that does not, for people to read.
func (r Requirement) Check(predicate []byte) error {
	if len(r.where) == 0 {
		return nil
	}
	// Names that stand twice make two readers see two values.
	if err := evidence.CheckJSON(predicate); err != nil {
		return fmt.Errorf("its predicate cannot be read: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for _, c := range r.where {
		if err := c.check(predicate); err != nil {
			return err
		}
	}
	return nil
}

func (c condition) check(predicate []byte) error {
	value, err := lookup(predicate, c.path)
	if err != nil {
		return err
	}
	if c.Exists != nil && *c.Exists != (value != nil) {
		return c.fails(value, map[bool]string{true: "it must be there", false: "it must not be there"}[*c.Exists])
	}
	if value == nil {
		if c.Exists != nil {
			return nil
		}
		return c.fails(nil, c.want())
	}
	v, _ := decodeScalar(value)
	if c.Equals != nil && !same(v, c.Equals) || len(c.OneOf) > 0 && !isAmong(v, c.OneOf) {
		return c.fails(value, c.want())
	}
	if text, ok := v.(string); c.matches != nil && (!ok || !c.matches.MatchString(text)) {
		return c.fails(value, c.want())
	}
	if c.Contains != nil && !contains(value, v, c.Contains) {
		return c.fails(value, c.want())
	}
	number, ok := v.(float64)
	if (c.AtLeast != nil || c.AtMost != nil) && !ok || c.AtLeast != nil && number < *c.AtLeast || c.AtMost != nil && number > *c.AtMost {
		return c.fails(value, c.want())
	}
	return nil
}

// want says what the condition asks for.
func (c condition) want() string {
	var parts []string
	if c.Equals != nil {
		parts = append(parts, "equals "+shown(c.Equals))
	}
	if len(c.OneOf) > 0 {
		var values []string
		for _, v := range c.OneOf {
			values = append(values, shown(v))
		}
		parts = append(parts, "one_of "+strings.Join(values, ", "))
	}
	if c.matches != nil {
		parts = append(parts, "matches "+strconv.Quote(c.Matches))
	}
	if c.Contains != nil {
		parts = append(parts, "contains "+shown(c.Contains))
	}
	if c.AtLeast != nil {
		parts = append(parts, "at_least "+shown(*c.AtLeast))
	}
	if c.AtMost != nil {
		parts = append(parts, "at_most "+shown(*c.AtMost))
	}
	return "want " + strings.Join(parts, " and ")
}

func (c condition) fails(value jsontext.Value, want string) error {
	is := "is missing"
	if value != nil {
		text := string(value)
		if len(text) > maxQuoted {
			text = text[:maxQuoted] + "…"
		}
		is = "is " + strings.ToValidUTF8(text, "")
	}
	return fmt.Errorf("%s of its predicate %s, %s", strconv.Quote(c.Path), is, want)
}

func shown(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(v)
}

// lookup returns the value that the pointer leads to, nil where there is none. It reads
// along the way, so that a large predicate is not taken apart in memory.
func lookup(data []byte, pointer jsontext.Pointer) (jsontext.Value, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data))
	for token := range pointer.Tokens() {
		found, err := enter(dec, token)
		if err != nil || !found {
			return nil, err
		}
	}
	return dec.ReadValue()
}

// enter goes on to the member or element of the next value that the token names.
func enter(dec *jsontext.Decoder, token string) (bool, error) {
	kind := dec.PeekKind()
	if kind != '{' && kind != '[' {
		return false, nil
	}
	if _, err := dec.ReadToken(); err != nil {
		return false, err
	}
	for i := 0; dec.PeekKind() != '}' && dec.PeekKind() != ']'; i++ {
		name := strconv.Itoa(i) // RFC 6901, section 4: no leading zeros
		if kind == '{' {
			t, err := dec.ReadToken()
			if err != nil {
				return false, err
			}
			name = t.String()
		}
		if name == token {
			return true, nil
		}
		if err := dec.SkipValue(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// decodeScalar returns a string, a float64 or a bool; false for any other value.
func decodeScalar(value jsontext.Value) (any, bool) {
	t, err := jsontext.NewDecoder(bytes.NewReader(value)).ReadToken()
	if err != nil {
		return nil, false
	}
	switch t.Kind() {
	case '"':
		return t.String(), true
	case '0':
		number, err := t.Float()
		return number, err == nil
	case 't', 'f':
		return t.Bool(), true
	}
	return nil, false
}

// scalar returns a value that is written in TOML as decodeScalar returns it.
func scalar(v any) (any, bool) {
	switch v := v.(type) {
	case string, bool, float64:
		return v, true
	case int64:
		return float64(v), true
	case int:
		return float64(v), true
	}
	return nil, false
}

func same(v, written any) bool {
	want, ok := scalar(written)
	if number, isNumber := v.(float64); isNumber && math.Abs(number) >= maxExact {
		return false // it may stand for its neighbours
	}
	return ok && v != nil && v == want
}

func isAmong(v any, written []any) bool {
	for _, w := range written {
		if same(v, w) {
			return true
		}
	}
	return false
}

func contains(value jsontext.Value, v, written any) bool {
	if text, ok := v.(string); ok {
		part, ok := written.(string)
		return ok && strings.Contains(text, part)
	}
	if value.Kind() != '[' {
		return false
	}
	dec := jsontext.NewDecoder(bytes.NewReader(value))
	if _, err := dec.ReadToken(); err != nil {
		return false
	}
	for dec.PeekKind() != ']' {
		element, err := dec.ReadValue()
		if err != nil {
			return false
		}
		if e, ok := decodeScalar(element); ok && same(e, written) {
			return true
		}
	}
	return false
}
