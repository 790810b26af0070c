package referrers

import (
	"encoding"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

// A TOML library decodes leniently: it matches keys in any case, so that
// "Required" would be taken and the default put beside it would win, and its
// errors do not name the key. A policy must not be lost that way; so the tables
// are decoded here, key by key.

// canonical brings a table into the types that TOML has: strings, int64, bool,
// []any and map[string]any.
func canonical(table map[string]any) (map[string]any, error) {
	b, err := toml.Marshal(table)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	return out, toml.Unmarshal(b, &out)
}

// decodeTable decodes a canonical table onto the struct that into points at, by
// its toml tags. Every key must be one of them, to the letter.
func decodeTable(table map[string]any, into any) error {
	v := reflect.ValueOf(into).Elem()
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("toml"), ","); name != "" {
			fields[name] = v.Field(i)
		}
	}
	keys := slices.Sorted(maps.Keys(table))
	unknown := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return fields[key].IsValid() })
	if len(unknown) > 0 {
		return unknownKeys(unknown, slices.Sorted(maps.Keys(fields)))
	}
	for _, key := range keys {
		if err := decodeValue(key, table[key], fields[key]); err != nil {
			return err
		}
	}
	return nil
}

// unknownKeys says which keys were meant, where that can be told, and which there are.
func unknownKeys(unknown, known []string) error {
	var meant []string
	for _, key := range unknown {
		if near := nearest(key, known); near != "" && !slices.Contains(meant, near) {
			meant = append(meant, near)
		}
	}
	question := ""
	if len(meant) > 0 {
		question = "did you mean " + strings.Join(meant, ", ") + "? "
	}
	return fmt.Errorf("unknown key %s: %swrite one of %s, or remove it: %w", strings.Join(unknown, ", "), question, strings.Join(known, ", "), errdefs.ErrInvalidArgument)
}

// nearest returns the known key that is most like the given one, "" where none is:
// one that contains it, or that at most half of the letters have to change for.
func nearest(key string, known []string) string {
	key = strings.ToLower(key)
	best, least := "", math.MaxInt
	for _, k := range known {
		d := distance(key, k)
		like := d <= max(len(key), len(k))/2 || len(key) > 2 && strings.Contains(k, key)
		if like && d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is that of Levenshtein, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // from what was read of a to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func decodeValue(key string, value any, field reflect.Value) error {
	if u, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		s, ok := value.(string)
		if !ok {
			s = fmt.Sprint(value)
		}
		if err := u.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("key %s: %w: %w", key, err, errdefs.ErrInvalidArgument)
		}
		return nil
	}
	switch field.Kind() {
	case reflect.String:
		s, ok := value.(string)
		if !ok {
			return badValue(key, value, "a string")
		}
		field.SetString(s)
	case reflect.Int, reflect.Int64:
		n, ok := value.(int64)
		if !ok || field.OverflowInt(n) {
			return badValue(key, value, "a number")
		}
		field.SetInt(n)
	case reflect.Bool:
		b, ok := value.(bool)
		if !ok {
			return badValue(key, value, "true or false")
		}
		field.SetBool(b)
	case reflect.Map:
		m, ok := value.(map[string]any)
		if !ok {
			return badValue(key, value, "a table")
		}
		field.Set(reflect.ValueOf(m))
	case reflect.Struct:
		m, ok := value.(map[string]any)
		if !ok {
			return badValue(key, value, "a table")
		}
		if err := decodeTable(m, field.Addr().Interface()); err != nil {
			return fmt.Errorf("table %s: %w", key, err)
		}
	case reflect.Slice:
		return decodeList(key, value, field)
	default: // of a containerd to come: better refused than passed over
		return fmt.Errorf("key %s cannot be set here, since it is of Go's type %s: remove it: %w", key, field.Type(), errdefs.ErrInvalidArgument)
	}
	return nil
}

// decodeList decodes arrays of strings and of tables.
func decodeList(key string, value any, field reflect.Value) error {
	tables := field.Type().Elem().Kind() == reflect.Struct
	what := `an array of strings, ["…"]`
	if tables {
		what = "[[…]] tables"
	}
	list, ok := value.([]any)
	if !ok {
		return badValue(key, value, what)
	}
	field.SetZero() // a list replaces the default, and is not appended to it
	for i, v := range list {
		element := reflect.New(field.Type().Elem()).Elem()
		switch v := v.(type) {
		case string:
			if tables {
				return badValue(key, value, what)
			}
			element.SetString(v)
		case map[string]any:
			if !tables {
				return badValue(key, value, what)
			}
			if err := decodeTable(v, element.Addr().Interface()); err != nil {
				return fmt.Errorf("%s %d: %w", strings.TrimSuffix(key, "s"), i+1, err)
			}
		default:
			return badValue(key, value, what)
		}
		field.Set(reflect.Append(field, element))
	}
	return nil
}

// badValue says what to write for the key.
func badValue(key string, value any, how string) error {
	shown := fmt.Sprint(value)
	if s, ok := value.(string); ok {
		shown = strconv.Quote(s)
	}
	return fmt.Errorf("key %s = %s: write %s: %w", key, shown, how, errdefs.ErrInvalidArgument)
}

// decodeForeign decodes a table onto another plugin's configuration, with its
// defaults, as strictly as our own. The keys are containerd's, which
// docs/configuration.md lists; what they may hold is told apart by the field.
func decodeForeign(table map[string]any, into any) error {
	table, err := canonical(table)
	if err != nil {
		return err
	}
	return decodeTable(table, into)
}
