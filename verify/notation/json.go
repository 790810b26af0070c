package notation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth is how deep JSON may be nested: an envelope has three levels, a policy five.
const maxDepth = 32

// unambiguous refuses JSON that two readers could understand differently: a name that occurs
// twice in an object, in whatever case, since encoding/json takes the last and compares
// without case; and anything behind the value.
func unambiguous(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := walk(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func walk(dec *json.Decoder, depth int) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	names := make(map[string]bool)
	for dec.More() {
		if delim == '{' {
			token, err := dec.Token()
			if err != nil {
				return err
			}
			name := strings.ToLower(token.(string)) // More and the decoder hold that it is one
			if names[name] {
				return fmt.Errorf("the name %s occurs twice", quote(name))
			}
			names[name] = true
		}
		if err := walk(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}
