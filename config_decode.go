package referrers

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

// decode decodes a table onto the struct that into points at, and returns the table in
// the types that TOML has: strings, int64, bool, []any and map[string]any. go-toml
// matches keys in any case, so that "Required" would win over the "required" beside it,
// and its errors name no key; so checkTable looks at each of them before.
func decode(table map[string]any, into any) (map[string]any, error) {
	doc, err := toml.Marshal(table)
	if err != nil {
		return nil, err
	}
	table = map[string]any{}
	if err := toml.Unmarshal(doc, &table); err != nil {
		return nil, err
	}
	if err := checkTable(table, reflect.TypeOf(into).Elem()); err != nil {
		return nil, err
	}
	return table, decodeStrictly(doc, into)
}

func decodeStrictly(doc []byte, into any) error {
	return toml.NewDecoder(bytes.NewReader(doc)).DisallowUnknownFields().Decode(into)
}

// checkTable walks a table beside the struct that it is decoded onto: each key must be
// one of the struct's, to the letter, with a value that go-toml takes for it. The error
// is errdefs.ErrInvalidArgument, names the key and where it stands, and says what to write.
func checkTable(table map[string]any, t reflect.Type) error {
	types := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if key, _, _ := strings.Cut(f.Tag.Get("toml"), ","); key != "" && key != "-" {
			types[key] = f.Type
		}
	}
	keys := slices.Sorted(maps.Keys(table))
	unknown := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return types[key] != nil })
	if len(unknown) > 0 {
		return fmt.Errorf("unknown key %s: write one of %s, or remove it: %w",
			strings.Join(unknown, ", "), strings.Join(slices.Sorted(maps.Keys(types)), ", "), errdefs.ErrInvalidArgument)
	}
	for _, key := range keys {
		if err := checkValue(key, table[key], types[key]); err != nil {
			return err
		}
	}
	return nil
}

// written is how TOML writes what a field of the kind takes.
var written = map[reflect.Kind]string{
	reflect.String: "a string", reflect.Bool: "true or false", reflect.Int: "a number", reflect.Int64: "a number",
	reflect.Slice: `an array of strings, ["…"]`, reflect.Map: "a table", reflect.Struct: "a table",
	reflect.Float64: "a number", reflect.Interface: "a string, a number, true or false",
}

// checkValue checks the tables within a value, and then has go-toml decode it alone.
func checkValue(key string, value any, t reflect.Type) error {
	how, err := checkWithin(key, value, t)
	if err != nil {
		return err
	}
	doc, err := toml.Marshal(map[string]any{key: value})
	if err != nil {
		return err
	}
	into := reflect.New(reflect.MapOf(reflect.TypeFor[string](), t))
	if err = errTable; !misplaced(value, t) {
		err = decodeStrictly(doc, into.Interface())
	}
	if err == nil {
		return nil
	}
	if u, ok := reflect.New(t).Interface().(encoding.TextUnmarshaler); ok { // its error says what to write
		if err := u.UnmarshalText(fmt.Append(nil, value)); err != nil {
			return fmt.Errorf("key %s: %w: %w", key, err, errdefs.ErrInvalidArgument)
		}
	}
	if how == "" {
		return fmt.Errorf("key %s = %v: %w: %w", key, value, err, errdefs.ErrInvalidArgument)
	}
	return badValue(key, value, how)
}

var errTable = errors.New("it is no table")

// checkWithin checks the tables within a value. It returns how such a value is written.
func checkWithin(key string, value any, t reflect.Type) (how string, err error) {
	if how = written[t.Kind()]; t.Kind() == reflect.Pointer && slices.Contains([]reflect.Kind{reflect.Bool, reflect.Float64}, t.Elem().Kind()) {
		how = written[t.Elem().Kind()]
	}
	table, isTable := value.(map[string]any)
	switch {
	case isTable && t.Kind() == reflect.Struct:
		if err := checkTable(table, t); err != nil {
			return "", fmt.Errorf("table %s: %w", key, err)
		}
	case isTable && t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
		for _, name := range slices.Sorted(maps.Keys(table)) {
			if err := checkValue(key+"."+name, table[name], t.Elem()); err != nil {
				return "", err
			}
		}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		how = "[[…]] tables"
		list, _ := value.([]any)
		for i, element := range list {
			table, _ := element.(map[string]any)
			if err := checkTable(table, t.Elem()); err != nil {
				return "", fmt.Errorf("%s %d: %w", strings.TrimSuffix(key, "s"), i+1, err)
			}
		}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Interface:
		how = "an array of strings, numbers, true or false"
	}
	return how, nil
}

// misplaced reports whether there is a table where the type has none. go-toml takes an
// empty one for any value, and panics on one that holds another.
func misplaced(value any, t reflect.Type) bool {
	if list, ok := value.([]any); ok {
		return slices.ContainsFunc(list, func(element any) bool {
			if t.Kind() == reflect.Slice {
				return misplaced(element, t.Elem())
			}
			return misplaced(element, t)
		})
	}
	_, table := value.(map[string]any)
	return table && t.Kind() != reflect.Struct && t.Kind() != reflect.Map
}

// badValue says what to write for the key.
func badValue(key string, value any, how string) error {
	shown := fmt.Sprint(value)
	if s, ok := value.(string); ok {
		shown = strconv.Quote(s)
	}
	return fmt.Errorf("key %s = %s: write %s: %w", key, shown, how, errdefs.ErrInvalidArgument)
}
