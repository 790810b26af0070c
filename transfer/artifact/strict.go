package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
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

// maxMembers is how many members an object may have: the fields of a manifest or a
// descriptor, known or not, and of what is not read within them. The names of each are
// held to find one that stands there twice.
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
	o := &object{read: read, seen: map[string]bool{}}
	for dec.PeekKind() == '"' {
		if err := o.member(dec); err != nil {
			return err
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end")
	}
	slices.Sort(o.unknown)
	for i, name := range o.unknown {
		if i > 0 && name == o.unknown[i-1] {
			o.note(errTwice(name))
		}
	}
	return o.wrong
}

// object is an object that is being read.
type object struct {
	read    members
	seen    map[string]bool
	unknown []string // sorted in the end: a map of a thousand costs three times as much
	wrong   error    // the first of what is wrong
	name    []byte   // of the last member
}

func (o *object) note(err error) {
	if o.wrong == nil {
		o.wrong = err
	}
}

// member reads the next member. The error ends the object: what follows cannot be read.
func (o *object) member(dec *jsontext.Decoder) error {
	quoted, err := dec.ReadValue()
	if err != nil {
		return err
	}
	if o.name, err = jsontext.AppendUnquote(o.name[:0], quoted); err != nil {
		return err // of invalid UTF-8
	}
	name := string(o.name)
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	switch known := o.read[name]; {
	case o.seen[name]:
		o.note(errTwice(name))
	case len(o.seen)+len(o.unknown) == maxMembers:
		return fmt.Errorf("an object has more than %d fields", maxMembers)
	case known != nil:
		o.seen[name] = true
		if err := known(value); err != nil {
			o.note(fmt.Errorf("field %q: %w", name, err))
		}
	default:
		o.unknown = append(o.unknown, name)
		o.note(checkUnknown(name, value, o.read))
	}
	return nil
}

func errTwice(name string) error { return fmt.Errorf("the field %.80q stands there twice", name) }

// checkUnknown looks at a member that is not read. It must not be a known one in another
// case, nor hold what no strict reader takes.
func checkUnknown(name string, value jsontext.Value, read members) error {
	for known := range read {
		if strings.EqualFold(name, known) {
			return fmt.Errorf("the field %.80q is not spelt %q", name, known)
		}
	}
	if err := checkUnread(value); err != nil {
		return fmt.Errorf("the field %.80q holds %w", name, err)
	}
	return nil
}

var errAmbiguous = errors.New("a name twice, or invalid UTF-8")

// checkUnread looks for what no strict reader takes in a value that is not read. The
// error completes "it holds".
func checkUnread(value jsontext.Value) error {
	switch value.Kind() {
	case '{', '[':
	case '"':
		if !value.IsValid() {
			return errAmbiguous
		}
		return nil
	default:
		return nil // its syntax has been checked
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(value))
	for {
		switch _, err := dec.ReadToken(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return errAmbiguous
		}
		// An object's names and values count alike.
		if kind, n := dec.StackIndex(dec.StackDepth()); kind == '{' && n > 2*maxMembers {
			return fmt.Errorf("an object of more than %d fields", maxMembers)
		}
	}
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
