package evidence_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

const (
	ours   = digest.Digest("sha256:aaaa")
	theirs = digest.Digest("sha256:bbbb")
)

func statement(more string) string {
	return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"pkg:docker/app","digest":{"sha256":"bbbb"}},{"name":"app","digest":{"sha512":"cc","sha256":"aaaa"}}],"predicateType":"https://slsa.dev/provenance/v1"%s}`, more)
}

// What a statement says of the subject is read, its predicate as it stands there.
func TestReadStatement(t *testing.T) {
	t.Parallel()
	s, err := evidence.ReadStatement([]byte(statement(`, "predicate" : {"a": [1,  2]} ,"other":{}`)), ours)
	if err != nil || s.PredicateType != "https://slsa.dev/provenance/v1" || string(s.Predicate) != `{"a": [1,  2]}` || len(s.Names) != 1 || s.Names[0] != "app" {
		t.Errorf("read is %+v, %v", s, err)
	}
	if s, err := evidence.ReadStatement([]byte(statement("")), theirs); err != nil || s.Predicate != nil || s.Names[0] != "pkg:docker/app" {
		t.Errorf("without a predicate: %+v, %v", s, err)
	}
	if _, err := evidence.ReadStatement([]byte(statement("")), "sha512:cc"); err != nil {
		t.Errorf("by its sha512: %v", err)
	}
}

func TestReadStatementRefuses(t *testing.T) {
	t.Parallel()
	many := strings.Replace(statement(""), `"subject":[`, `"subject":[`+strings.Repeat(`{"name":"x","digest":{"sha256":"dd"}},`, 1024), 1)
	for name, tc := range map[string]struct{ data, want string }{
		"another subject":                {strings.ReplaceAll(statement(""), "aaaa", "eeee"), `another subject, "sha256:bbbb"`},
		"no subject":                     {`{"_type":"https://in-toto.io/Statement/v1","predicateType":"x","predicate":{}}`, "another subject"},
		"another type":                   {strings.Replace(statement(""), "Statement/v1", "Statement/v9", 1), "no in-toto statement"},
		"no type":                        {strings.Replace(statement(""), "_type", "type", 1), "no in-toto statement"},
		"no predicate type":              {strings.Replace(statement(""), "predicateType", "PredicateType", 1), "no predicateType"},
		"a name twice":                   {statement(`,"predicateType":"https://example.com/other"`), "twice"},
		"a name twice, escaped":          {statement(`,"predicate\u0054ype":"https://example.com/other"`), "twice"},
		"a name twice in the predicate":  {statement(`,"predicate":{"a":1,"a":2}`), "twice"},
		"no JSON":                        {`{"_type":`, "no JSON"},
		"something behind it":            {statement("") + "{}", "no JSON"},
		"an array":                       {`[]`, "where { belongs"},
		"a number for the type":          {strings.Replace(statement(""), `"https://in-toto.io/Statement/v1"`, "1", 1), "where a string belongs"},
		"a digest that is no object":     {strings.Replace(statement(""), `{"sha256":"bbbb"}`, `"aaaa"`, 1), "where { belongs"},
		"subjects that are no array":     {`{"_type":"https://in-toto.io/Statement/v1","subject":{"digest":{"sha256":"aaaa"}},"predicateType":"x"}`, "where [ belongs"},
		"more subjects than are bounded": {many, "more than 1024 subjects"},
		"nothing":                        {"", "no JSON"},
	} {
		if s, err := evidence.ReadStatement([]byte(tc.data), ours); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %+v, %v, want an errdefs.ErrInvalidArgument with %q", name, s, err, tc.want)
		}
	}
}
