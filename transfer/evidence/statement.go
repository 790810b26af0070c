package evidence

import (
	"bytes"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/opencontainers/go-digest"
)

// InToto is an in-toto statement (in-toto attestation framework, "Statement"): what somebody
// says of subjects. It is worth what the signature around it is worth.
type InToto struct {
	// PredicateType says what Predicate is, which is the JSON as it stands there.
	PredicateType string
	Predicate     []byte
	// Names are those of the subjects that have the digest asked for.
	Names []string
}

// CosignSign is the predicate type of a statement by which cosign v3 signs.
const CosignSign = "https://sigstore.dev/cosign/sign/v1"

// maxStatementSubjects is how many subjects a statement may have.
const maxStatementSubjects = 1024

// statementTypes are the versions of the statement: their fields are the same.
var statementTypes = map[string]bool{
	"https://in-toto.io/Statement/v1":   true,
	"https://in-toto.io/Statement/v0.1": true,
}

// ReadStatement reads a statement that must be about the subject. The predicate is part of
// data. A name that stands twice, anywhere in it, is an error: two readers would see two
// values. The error is errdefs.ErrInvalidArgument.
func ReadStatement(data []byte, subject digest.Digest) (*InToto, error) {
	r := statementReader{subject: subject}
	if err := r.read(data); err != nil {
		return nil, fmt.Errorf("its statement cannot be read: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	switch {
	case !statementTypes[r.kind]:
		return nil, fmt.Errorf("its statement is of type %.80q, which is no in-toto statement: %w", r.kind, errdefs.ErrInvalidArgument)
	case !r.about:
		return nil, fmt.Errorf("its statement is about another subject, %.80q: %w", r.other, errdefs.ErrInvalidArgument)
	case r.out.PredicateType == "":
		return nil, fmt.Errorf("its statement has no predicateType: %w", errdefs.ErrInvalidArgument)
	}
	return &r.out, nil
}

type statementReader struct {
	subject  digest.Digest
	out      InToto
	kind     string
	subjects int
	about    bool
	other    string // a digest that it is about instead
}

func (r *statementReader) read(data []byte) error {
	if err := CheckJSON(data); err != nil {
		return err
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(data))
	return members(dec, func(name string) error {
		switch name {
		case "_type":
			return text(dec, &r.kind)
		case "predicateType":
			return text(dec, &r.out.PredicateType)
		case "subject":
			return elements(dec, func() error { return r.readSubject(dec) })
		case "predicate":
			value, err := dec.ReadValue()
			end := dec.InputOffset()
			r.out.Predicate = data[end-int64(len(value)) : end : end]
			return err
		}
		return dec.SkipValue()
	})
}

func (r *statementReader) readSubject(dec *jsontext.Decoder) error {
	if r.subjects++; r.subjects > maxStatementSubjects {
		return fmt.Errorf("it has more than %d subjects", maxStatementSubjects)
	}
	var name string
	about := false
	err := members(dec, func(member string) error {
		switch member {
		case "name":
			return text(dec, &name)
		case "digest":
			return members(dec, func(algorithm string) error {
				var encoded string
				err := text(dec, &encoded)
				if is := algorithm + ":" + encoded; is == r.subject.String() {
					about = true
				} else if r.other == "" {
					r.other = is
				}
				return err
			})
		}
		return dec.SkipValue()
	})
	if about && err == nil {
		r.about = true
		if name != "" {
			r.out.Names = append(r.out.Names, name)
		}
	}
	return err
}

// members calls f with the name of each member of an object, whose value f reads.
func members(dec *jsontext.Decoder, f func(name string) error) error {
	return within(dec, '{', func() error {
		t, err := dec.ReadToken()
		if err != nil {
			return err
		}
		return f(t.String())
	})
}

// elements calls f for each element of an array, which f reads.
func elements(dec *jsontext.Decoder, f func() error) error { return within(dec, '[', f) }

func within(dec *jsontext.Decoder, kind jsontext.Kind, f func() error) error {
	if got := dec.PeekKind(); got != kind {
		return fmt.Errorf("it has %s where %s belongs", got, kind)
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' && dec.PeekKind() != ']' {
		if err := f(); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

func text(dec *jsontext.Decoder, into *string) error {
	if kind := dec.PeekKind(); kind != '"' {
		return fmt.Errorf("it has %s where a string belongs", kind)
	}
	t, err := dec.ReadToken()
	if err == nil {
		*into = t.String()
	}
	return err
}
