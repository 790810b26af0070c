package sigstore

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// JSON is read by token, in memory that does not grow with it. An object has each name once
// and no known name in another case, so that no other reader of the same bytes, such as
// sigstore-go with encoding/json, finds another value in them.

// members names the members of an object that are read, and what reads their values.
type members map[string]func(*jsontext.Decoder) error

// readDocument reads exactly one object.
func readDocument(data []byte, read members) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data))
	if err := readObject(dec, read); err != nil {
		return err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end")
	}
	return nil
}

// readObject reads an object, and skips members that read does not name.
func readObject(dec *jsontext.Decoder, read members) error { return readMembers(dec, read, skip) }

// readOnly reads an object that has no members but those that read names.
func readOnly(dec *jsontext.Decoder, read members) error {
	return readMembers(dec, read, func(*jsontext.Decoder) error { return errors.New("there is no such member") })
}

func readMembers(dec *jsontext.Decoder, read members, other func(*jsontext.Decoder) error) error {
	switch open, err := dec.ReadToken(); {
	case err != nil:
		return err
	case open.Kind() != '{':
		return fmt.Errorf("%s instead of an object", open.Kind())
	}
	for n := 0; dec.PeekKind() == '"'; n++ {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if n == maxMembers {
			return fmt.Errorf("an object of more than %d members", maxMembers)
		}
		name := token.String()
		value := read[name]
		if value == nil {
			if err := differentCase(name, read); err != nil {
				return err
			}
			value = other
		}
		if err := value(dec); err != nil {
			return fmt.Errorf("%.80q: %w", name, err)
		}
	}
	_, err := dec.ReadToken()
	return err
}

func differentCase(name string, read members) error {
	for known := range read {
		if strings.EqualFold(name, known) {
			return fmt.Errorf("%.80q is not spelt %q", name, known)
		}
	}
	return nil
}

// readArray calls each for the elements of an array, which must read one value.
func readArray(dec *jsontext.Decoder, most int, each func(*jsontext.Decoder) error) error {
	switch open, err := dec.ReadToken(); {
	case err != nil:
		return err
	case open.Kind() != '[':
		return fmt.Errorf("%s instead of an array", open.Kind())
	}
	for n := 1; dec.PeekKind() != ']'; n++ {
		if n > most {
			return fmt.Errorf("%d, more than %d", n+countRest(dec), most)
		}
		if err := each(dec); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// countRest counts the elements after the next, for an error to say how many there are.
func countRest(dec *jsontext.Decoder) (n int) {
	for n = -1; dec.PeekKind() != ']' && dec.SkipValue() == nil; n++ {
	}
	return max(n, 0)
}

// skip reads a value of any kind and drops it. The names of an object are held until it ends,
// so that the objects that are open have maxMembers together.
func skip(dec *jsontext.Decoder) error {
	depth := dec.StackDepth()
	var members []int64 // of each level below depth, names and values alike
	var open int64
	for {
		if _, err := dec.ReadToken(); err != nil {
			return err
		}
		level := dec.StackDepth() - depth
		for len(members) > level {
			open -= members[len(members)-1]
			members = members[:len(members)-1]
		}
		if level == 0 {
			return nil
		}
		if len(members) < level {
			members = append(members, 0)
		}
		if kind, n := dec.StackIndex(depth + level); kind == '{' {
			open += n - members[level-1]
			members[level-1] = n
		}
		if open > 2*maxMembers {
			return fmt.Errorf("objects of more than %d members", maxMembers)
		}
	}
}

// text reads a string of at most maxText bytes.
func text(into *string) func(*jsontext.Decoder) error { return boundedText(into, maxText) }

func boundedText(into *string, most int) func(*jsontext.Decoder) error {
	return func(dec *jsontext.Decoder) error {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if token.Kind() != '"' {
			return fmt.Errorf("%s instead of a string", token.Kind())
		}
		s := token.String()
		if len(s) > most {
			return fmt.Errorf("%d bytes, more than %d", len(s), most)
		}
		*into = s
		return nil
	}
}

// integer reads a number that has no fraction.
func integer(into *int64) func(*jsontext.Decoder) error {
	return func(dec *jsontext.Decoder) error {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if token.Kind() != '0' {
			return fmt.Errorf("%s instead of a number", token.Kind())
		}
		if *into, err = strconv.ParseInt(token.String(), 10, 64); err != nil {
			return fmt.Errorf("%.40q is no integer", token.String())
		}
		return nil
	}
}

// raw reads base64, of the standard alphabet or that of URLs.
func raw(into *[]byte) func(*jsontext.Decoder) error {
	return func(dec *jsontext.Decoder) error {
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		if value.Kind() != '"' {
			return fmt.Errorf("%s instead of a string", value.Kind())
		}
		encoded := value[1 : len(value)-1]
		if bytes.IndexByte(encoded, '\\') >= 0 {
			if encoded, err = jsontext.AppendUnquote(nil, value); err != nil {
				return err
			}
		}
		*into, err = decode(encoded)
		return err
	}
}

func decode(encoded []byte) ([]byte, error) {
	encoding := base64.StdEncoding
	if bytes.ContainsAny(encoded, "-_") {
		encoding = base64.URLEncoding
	}
	decoded := make([]byte, encoding.DecodedLen(len(encoded)))
	n, err := encoding.Decode(decoded, encoded)
	if err != nil {
		return nil, errors.New("it is not base64")
	}
	return decoded[:n], nil
}

// countTokens refuses JSON of more tokens than most, so that what parses it into objects does
// not make masses of them.
func countTokens(data []byte, most int) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data))
	for n := 0; ; n++ {
		switch _, err := dec.ReadToken(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n == most:
			return fmt.Errorf("more than %d JSON tokens", most)
		}
	}
}
