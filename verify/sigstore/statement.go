package sigstore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// signPredicateType is that of the statements in which cosign v3 signs: they say no more than
// that somebody signed the subject.
const signPredicateType = "https://sigstore.dev/cosign/sign/v1"

// statementTypes are those of the in-toto attestation framework.
var statementTypes = []string{"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"}

// claim is what signed bytes say of a subject. It proves nothing until the signature does.
type claim struct {
	kind          evidence.Kind
	predicateType string
	predicate     []byte
	names         []string
}

// readStatement reads an in-toto statement, which must be about subject. It does so before
// sigstore-go, which makes objects of all subjects before it counts them.
func readStatement(payload []byte, subject digest.Digest) (claim, error) {
	s := statement{subject: subject}
	err := readDocument(payload, members{
		"_type":         text(&s.typ),
		"predicateType": text(&s.predicateType),
		"predicate":     s.readPredicate(payload),
		"subject": func(dec *jsontext.Decoder) error {
			return readArray(dec, maxSubjects, s.readSubject)
		},
	})
	switch {
	case err != nil:
		return claim{}, refuseFor("the in-toto statement cannot be read", err, "sign a statement that is strict JSON and smaller")
	case !slices.Contains(statementTypes, s.typ):
		return claim{}, refuse(fmt.Sprintf("the statement is of type %s", cut(s.typ)), "sign one of type "+statementTypes[0])
	case s.predicateType == "":
		return claim{}, refuse("the statement has no predicateType", "sign a statement that has one")
	case !s.matches:
		return claim{}, refuse(fmt.Sprintf("none of the statement's %d subjects is %s: it is about something else", s.subjects, subject), "attest this very digest")
	}
	if s.predicateType == signPredicateType {
		return claim{kind: evidence.Signature, names: s.names}, nil
	}
	return claim{kind: evidence.Attestation, predicateType: s.predicateType, predicate: s.predicate, names: s.names}, nil
}

type statement struct {
	subject digest.Digest

	typ, predicateType string
	predicate          []byte
	subjects           int
	matches            bool
	names              []string
}

// readPredicate keeps the bytes of the predicate as they are signed.
func (s *statement) readPredicate(payload []byte) func(*jsontext.Decoder) error {
	return func(dec *jsontext.Decoder) error {
		start := dec.InputOffset()
		if err := skip(dec); err != nil {
			return err
		}
		// Between a name and its value stand a colon and white space.
		s.predicate = bytes.TrimLeft(payload[start:dec.InputOffset()], ": \t\r\n")
		return nil
	}
}

func (s *statement) readSubject(dec *jsontext.Decoder) error {
	s.subjects++
	var name string
	var is bool
	err := readObject(dec, members{
		"name": text(&name),
		"digest": func(dec *jsontext.Decoder) (err error) {
			is, err = s.readDigests(dec)
			return err
		},
	})
	if err == nil && is {
		s.matches = true
		if name != "" {
			s.names = append(s.names, name)
		}
	}
	return err
}

// readDigests reads a subject's digests, by algorithm.
func (s *statement) readDigests(dec *jsontext.Decoder) (is bool, err error) {
	if open, err := dec.ReadToken(); err != nil || open.Kind() != '{' {
		return false, errors.New("it is not an object")
	}
	for n := 1; dec.PeekKind() == '"'; n++ {
		var algorithm, value string
		if err := text(&algorithm)(dec); err != nil {
			return false, err
		}
		if err := text(&value)(dec); err != nil {
			return false, err
		}
		if n > maxDigests {
			return false, fmt.Errorf("more than %d digests", maxDigests)
		}
		is = is || algorithm == s.subject.Algorithm().String() && strings.EqualFold(value, s.subject.Encoded())
	}
	_, err = dec.ReadToken()
	return is, err
}

// digestBytes is the subject's digest as sigstore-go takes it. Its algorithm is one that both
// manifests and statements may be named by.
func digestBytes(d digest.Digest) (algorithm string, value []byte, err error) {
	if err := d.Validate(); err != nil {
		return "", nil, refuse("the subject has the digest "+cut(d.String()), "name it by sha256 or sha512")
	}
	value, err = hex.DecodeString(d.Encoded())
	if err != nil {
		return "", nil, refuse("the subject has the digest "+cut(d.String()), "name it by sha256 or sha512")
	}
	return d.Algorithm().String(), value, nil
}
