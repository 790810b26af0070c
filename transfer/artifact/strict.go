package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Documents of the network are read by token, since they are judged by their bytes'
// digest and by their fields: where two readers would find different fields under one
// digest, one of them can be deceived. An object that is read has each name once, no
// known name in another case (encoding/json would take it), valid UTF-8, and nothing
// behind it. RFC 8259 leaves all of these to the reader.

// maxMembers is how many members an object that is read may have: the fields of a
// manifest or a descriptor, known or not.
const maxMembers = 1000

// members names the members of an object that are read, and what reads their values.
type members map[string]func(jsontext.Value) error

// tolerant lets a decoder pass what is wrong within a value that another decoder reads
// strictly: what is wrong within an entry of a listing must not refuse the others.
var tolerant = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// readDocument reads exactly one object. The error is errdefs.ErrInvalidArgument.
func readDocument(data []byte, read members) error {
	if err := readObject(data, read); err != nil {
		return fmt.Errorf("decode JSON: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// readObject reads an object. The error is the first of what is wrong in it; members
// behind that are read all the same.
func readObject(data jsontext.Value, read members) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data), tolerant)
	switch open, err := dec.ReadToken(); {
	case err != nil:
		return err
	case open.Kind() == 'n':
		return errors.New("null is no object")
	case open.Kind() != '{':
		return fmt.Errorf("%s is no object", open.Kind())
	}
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	seen := map[string]bool{}
	for dec.PeekKind() == '"' {
		quoted, err := dec.ReadValue()
		if err != nil {
			return err
		}
		var name string
		if err := json.Unmarshal(quoted, &name); err != nil {
			return err // of invalid UTF-8
		}
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		switch known := read[name]; {
		case seen[name]:
			note(fmt.Errorf("the field %.80q stands there twice", name))
		case len(seen) == maxMembers:
			return fmt.Errorf("an object has more than %d fields", maxMembers)
		case known != nil:
			if err := known(value); err != nil {
				note(fmt.Errorf("field %q: %w", name, err))
			}
		default:
			note(checkUnknown(name, value, read))
		}
		seen[name] = true
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end")
	}
	return first
}

// checkUnknown looks at a member that is not read. It must not be a known one in another
// case, nor hold what no strict reader takes.
func checkUnknown(name string, value jsontext.Value, read members) error {
	for known := range read {
		if strings.EqualFold(name, known) {
			return fmt.Errorf("the field %.80q is not spelt %q", name, known)
		}
	}
	if !value.IsValid() {
		return fmt.Errorf("the field %.80q holds a name twice, or invalid UTF-8", name)
	}
	return nil
}

// readArray calls each with the elements of an array, until that has enough. The array is
// whole: an object's reader has seen its end.
func readArray(data jsontext.Value, each func(jsontext.Value) (more bool, err error)) error {
	if isNull(data) {
		return nil
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(data), tolerant)
	if open, err := dec.ReadToken(); err != nil || open.Kind() != '[' {
		return errors.New("it is not an array")
	}
	for dec.PeekKind() != ']' {
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		if more, err := each(value); !more || err != nil {
			return err
		}
	}
	return nil
}

// into reads a value of Go's type T. null is its zero value.
func into[T any](p *T) func(jsontext.Value) error {
	return func(value jsontext.Value) error { return json.Unmarshal(value, p) }
}

func isNull(value jsontext.Value) bool { return value.Kind() == 'n' }
