package policy

import (
	"encoding/json"
	"strconv"
	"strings"
)

// pointed finds what a JSON pointer leads to with encoding/json, as RFC 6901 says it.
func pointed(data, path string) (any, bool) {
	var value any
	if json.Unmarshal([]byte(data), &value) != nil {
		return nil, false
	}
	if path == "" {
		return value, true
	}
	for _, token := range strings.Split(path[1:], "/") {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch v := value.(type) {
		case map[string]any:
			next, ok := v[token]
			if !ok {
				return nil, false
			}
			value = next
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(v) || strconv.Itoa(i) != token {
				return nil, false
			}
			value = v[i]
		default:
			return nil, false
		}
	}
	return value, true
}
