package evidence_test

import (
	"encoding/json"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// FuzzReadStatement holds the reader of statements against encoding/json: what is accepted says
// to both that it is about the subject, and the same predicate.
func FuzzReadStatement(f *testing.F) {
	f.Add([]byte(statement(`,"predicate":{"a":1}`)))
	f.Add([]byte(statement("")))
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"digest":{"sha256":"aaaa"}}],"predicateType":"x","predicate":null}`))
	f.Add([]byte(`{"subject":[],"Subject":[{"digest":{"sha256":"aaaa"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := evidence.ReadStatement(data, ours)
		if err != nil {
			return
		}
		var other struct {
			Type          string `json:"_type"`
			PredicateType string `json:"predicateType"`
			Predicate     json.RawMessage
			Subject       []struct{ Digest map[string]string }
		}
		var exact map[string]json.RawMessage // encoding/json takes names in any case
		if json.Unmarshal(data, &exact) != nil || json.Unmarshal(exact["subject"], &other.Subject) != nil ||
			json.Unmarshal(exact["predicateType"], &other.PredicateType) != nil || json.Unmarshal(exact["_type"], &other.Type) != nil {
			t.Fatalf("accepted is %q", data)
		}
		about := false
		for _, subject := range other.Subject {
			about = about || subject.Digest["sha256"] == "aaaa"
		}
		if !about || s.PredicateType != other.PredicateType || string(s.Predicate) != string(exact["predicate"]) {
			t.Errorf("%q: %+v", data, s)
		}
	})
}
