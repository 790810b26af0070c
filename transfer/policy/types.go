package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// typePattern is one entry of artifact_types or required.
type typePattern struct {
	text string // as written
	deny bool
	set  string         // the set named, or
	re   *regexp.Regexp // the glob, or
	mime string         // the exact type, normalized
}

type typeList []typePattern

// SetAll is the set that every artifact belongs to.
const SetAll = "all"

var setNames = []string{artifact.SetSignatures, artifact.SetAttestations, artifact.SetSBOMs, SetAll}

// typeChars are those of RFC 6838's restricted names, of parameters, and "*".
var typeChars = regexp.MustCompile(`^[a-zA-Z0-9!#$&\-^_.+/*;= "]+$`)

// mediaType is a normalized "type/subtype" of RFC 6838's restricted names.
var mediaType = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&\-^_.+]*/[a-z0-9][a-z0-9!#$&\-^_.+]*$`)

func parseTypes(patterns []string) (typeList, error) {
	var list typeList
	for _, text := range patterns {
		p, err := parseType(text)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func parseType(text string) (typePattern, error) {
	p := typePattern{text: text}
	body := text
	if strings.HasPrefix(body, "!") {
		p.deny, body = true, body[1:]
	}
	known := `write a media type, a glob such as "application/vnd.example.*", or one of ` + strings.Join(setNames, ", ")
	switch {
	case strings.TrimSpace(body) == "":
		return p, fmt.Errorf("%s is empty; %s: %w", strconv.Quote(text), known, errdefs.ErrInvalidArgument)
	case !typeChars.MatchString(body) || strings.HasPrefix(body, "!"):
		return p, fmt.Errorf("%s has a character that no media type has; %s: %w", strconv.Quote(text), known, errdefs.ErrInvalidArgument)
	case slices.Contains(setNames, body):
		p.set = body
	case strings.Contains(body, "*"):
		if !strings.HasPrefix(body, "*") && !strings.Contains(body, "/") {
			return p, fmt.Errorf("%s is a glob without a slash, which every media type has; %s: %w", strconv.Quote(text), known, errdefs.ErrInvalidArgument)
		}
		if strings.ContainsAny(body, "; ") {
			return p, fmt.Errorf("%s is a glob with a parameter or a space, which types are compared without; leave it out: %w", strconv.Quote(text), errdefs.ErrInvalidArgument)
		}
		p.re = compileGlob(artifact.NormalizeType(body), `.*`)
	case mediaType.MatchString(artifact.NormalizeType(body)):
		p.mime = artifact.NormalizeType(body)
	default:
		return p, fmt.Errorf("%s is neither a media type nor a set; %s: %w", strconv.Quote(text), known, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

func (p typePattern) matches(r artifact.Reading) bool {
	switch {
	case p.set == SetAll:
		return true
	case p.set != "":
		return p.set == r.Set
	case p.re != nil:
		return p.re.MatchString(r.Type)
	default:
		return p.mime == r.Type
	}
}

// find returns the first take, or the first denial, that the reading falls under; nil
// where there is none.
func (l typeList) find(r artifact.Reading, deny bool) *typePattern {
	for i := range l {
		if l[i].deny == deny && l[i].matches(r) {
			return &l[i]
		}
	}
	return nil
}

// excludes returns a denial of the list if nothing that the pattern matches is left
// by its denials, as far as that can be told before any referrer is seen; nil if
// something may be.
func (l typeList) excludes(p typePattern) *typePattern {
	for i := range l {
		d := &l[i]
		all := d.set == SetAll || d.re != nil && d.re.MatchString("") // of nothing but stars
		if all || d.set != "" && d.set == p.set || d.re != nil && p.re != nil && d.re.String() == p.re.String() {
			return d
		}
	}
	var denial *typePattern
	for _, r := range p.examples() {
		if denial = l.find(r, true); denial == nil {
			return nil
		}
	}
	return denial
}

// examples returns all that an exact type or a set is known to match; nothing for a
// glob and for the set of all.
func (p typePattern) examples() []artifact.Reading {
	if p.mime != "" {
		return artifact.Readings(artifact.Referrer{ArtifactType: p.mime})
	}
	var out []artifact.Reading
	if p.set == artifact.SetSignatures || p.set == artifact.SetAttestations {
		out = append(out, artifact.Reading{Type: artifact.TypeBundle, Set: p.set})
	}
	for _, mime := range artifact.TypesOf(p.set) {
		out = append(out, artifact.Reading{Type: mime, Set: p.set})
	}
	return out
}
