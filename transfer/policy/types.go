package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
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
		if strings.ContainsAny(body, "; ") {
			return p, fmt.Errorf("%s is a glob with a parameter or a space, which types are compared without; leave it out: %w", strconv.Quote(text), errdefs.ErrInvalidArgument)
		}
		p.re = compileGlob(normalize(body), `.*`)
	case mediaType.MatchString(normalize(body)):
		p.mime = normalize(body)
	default:
		return p, fmt.Errorf("%s is neither a media type nor a set; %s: %w", strconv.Quote(text), known, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

func (p typePattern) matches(r reading) bool {
	switch {
	case p.set == SetAll:
		return true
	case p.set != "":
		return p.set == r.set
	case p.re != nil:
		return p.re.MatchString(r.mime)
	default:
		return p.mime == r.mime
	}
}

// find returns the first take, or the first denial, that the reading falls under; nil
// where there is none.
func (l typeList) find(r reading, deny bool) *typePattern {
	for i := range l {
		if l[i].deny == deny && l[i].matches(r) {
			return &l[i]
		}
	}
	return nil
}

// normalize brings a media type into the form that is compared: RFC 6838 makes
// names case-insensitive, and parameters do not change what an artifact is.
// The exception is sigstore's first bundle type, whose version is a parameter;
// sets know it by its name alone.
func normalize(mediaType string) string {
	name, _, _ := strings.Cut(mediaType, ";")
	return strings.ToLower(strings.TrimSpace(name))
}
