package registry

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// says is what an answer is worth, whoever gives it.
type says int

const (
	lists      says = iota // referrers
	none                   // an index without entries
	missing404             // 404
	missing405             // another code of a missing endpoint
	fails                  // 403
	page                   // 200 or its like, and no listing
	tooMuch                // a listing by its content type, over the limit
	itself                 // the subject
)

// scripted is an answer of the table.
type scripted struct {
	name string
	says says
	hostile.Answer
}

// place is who gives an answer.
type place int

const (
	own      place = iota // the host itself
	backend               // another host, which has the host's manifests
	stranger              // another host, which has none
)

// answersOfTheTable are codes by content types by sizes.
func answersOfTheTable(image []byte) []scripted {
	large := func(a hostile.Answer) hostile.Answer {
		return hostile.Answer{Header: a.Header, Announce: artifact.MaxManifestSize + 1, Stall: true}
	}
	listed, empty := hostile.Index(entry(1)), hostile.Index()
	html := hostile.Content("text/html", []byte("<html>"))
	json := hostile.Content("application/json", []byte(`{"errors":[]}`))
	return []scripted{
		{"a listing", lists, listed},
		{"a listing as JSON", lists, listed.With("Content-Type", "application/json")},
		{"an empty listing", none, empty},
		{"404", missing404, hostile.Status(404)},
		{"405", missing405, hostile.Status(405)},
		{"403", fails, hostile.Status(403)},
		{"204", page, hostile.Status(204)},
		{"201 with a listing", page, hostile.Answer{Code: 201, Header: listed.Header, Body: listed.Body}},
		{"HTML", page, html},
		{"large HTML", page, large(html)},
		{"JSON", page, json},
		{"large JSON", page, large(json)},
		{"{}", page, hostile.Content(ocispec.MediaTypeImageIndex, []byte("{}"))},
		{"a large listing", tooMuch, large(listed)},
		{"the subject", itself, hostile.Content(ocispec.MediaTypeImageIndex, image)},
	}
}

// wanted is what one host's answers make of the subject, and whether a referrer is taken.
func wanted(endpoint, tag says, at, tagAt place) (labels.Status, bool) {
	status := map[says]labels.Status{lists: labels.Present, none: labels.Absent}
	byTag := func() labels.Status { // after 404
		switch {
		case (tag == missing404 || tag == itself) && tagAt != stranger:
			return labels.Absent
		case tag == lists || tag == none:
			return status[tag]
		}
		return labels.Unknown
	}
	switch {
	case endpoint == lists || endpoint == none:
		return status[endpoint], endpoint == lists
	case endpoint == missing404:
		return byTag(), tag == lists
	case endpoint == missing405:
		if tag == missing404 || tag == itself {
			return labels.Unknown, false
		}
		return byTag(), tag == lists
	case endpoint == page, endpoint == fails && at != own:
		return labels.Unknown, tag == lists
	}
	return labels.Unknown, false
}

// TestEveryAnswerOfHostAndTag has each answer of the endpoint, by each host, with each of
// the tag, and with mirrors before it: what decides is who said what.
func TestEveryAnswerOfHostAndTag(t *testing.T) {
	image := hostile.Index(entry(7)).Body
	dgst := digest.FromBytes(image)
	all := answersOfTheTable(image)
	places := []place{own, backend, stranger}
	mirrors := []says{missing404, none, lists, fails}
	row := 0
	for _, endpoint := range all {
		if endpoint.says == itself {
			continue // an endpoint that answers so lists its own platforms: no one can tell
		}
		t.Run(endpoint.name, func(t *testing.T) {
			s, edge, mirror := hostile.New(t), hostile.New(t), hostile.New(t)
			for _, tag := range all {
				for _, at := range places {
					for _, tagAt := range places {
						if at == backend && tagAt == stranger || at == stranger && tagAt == backend {
							continue // one other host cannot be both
						}
						row++
						set := &tableRow{s, edge, dgst}
						set.on(referrersOf(dgst), endpoint.Answer, at)
						set.on(tagOf(dgst), tag.Answer, tagAt)
						set.manifest(at == backend || tagAt == backend)
						status, found := wanted(endpoint.says, tag.says, at, tagAt)
						before := mirrors[row%len(mirrors)]
						mirrorSays(mirror, before, dgst)
						name := fmt.Sprintf("%s at %d, tag %s at %d, mirror %d", endpoint.name, at, tag.name, tagAt, before)
						checkRow(t, name+", alone", s, nil, dgst, status, found)
						if before == lists {
							status, found = labels.Present, true
						} else if before == fails && status != labels.Present {
							status = labels.Unknown
						}
						checkRow(t, name, s, mirror, dgst, status, found)
					}
				}
			}
		})
	}
}

// tableRow scripts a registry and the host behind it.
type tableRow struct {
	s, edge *hostile.Server
	subject digest.Digest
}

func (r *tableRow) on(path string, a hostile.Answer, at place) {
	r.s.On(path, a)
	if at != own {
		r.s.On(path, hostile.Status(http.StatusTemporaryRedirect).With("Location", r.edge.URL()+path))
		r.edge.On(path, a)
	}
}

// manifest has the subject's manifest at the registry, or behind it.
func (r *tableRow) manifest(behind bool) {
	at := own
	if behind {
		at = backend
	}
	r.on(manifestOf(r.subject), hostile.Status(200).With("Docker-Content-Digest", r.subject.String()), at)
}

func mirrorSays(s *hostile.Server, what says, dgst digest.Digest) {
	answer := map[says]hostile.Answer{missing404: hostile.Status(404), none: hostile.Index(), lists: hostile.Index(entry(1)), fails: hostile.Status(403)}
	s.On(referrersOf(dgst), answer[what])
}

func checkRow(t *testing.T, name string, s, mirror *hostile.Server, dgst digest.Digest, status labels.Status, found bool) {
	t.Helper()
	hosts := []docker.RegistryHost{s.RegistryHost(byDefault)}
	if mirror != nil {
		hosts = slices.Insert(hosts, 0, mirror.RegistryHost(byDefault))
	}
	l, err := repositoryAt(t, s.Host(), twice, hosts...).List(t.Context(), dgst)
	if err != nil {
		t.Fatal(err)
	}
	if l.Status != status || (len(l.Referrers) > 0) != found {
		t.Errorf("%s: %s with %d, want %s, some: %t: %v", name, l.Status, len(l.Referrers), status, found, l.Answers)
	}
}
