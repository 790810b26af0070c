package hostile

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Answer is what one request is answered with. The zero value is an empty 200.
type Answer struct {
	Code   int               // 0 is 200
	Header map[string]string // beside what the other fields ask for
	Body   []byte

	// Announce is the Content-Length where it is not the body's; negative
	// announces none.
	Announce int64
	// Hang sends nothing, not even headers, until the client has left.
	Hang bool
	// Stall sends the headers and the body, and never ends.
	Stall bool
	// Drip sends the body byte by byte, this long apart.
	Drip time.Duration
	// Endless sends the body again and again, until the client has left.
	Endless bool
	// Drop closes the connection without a word.
	Drop bool
}

// Status answers with a code alone.
func Status(code int) Answer { return Answer{Code: code} }

// Content answers 200 with a body.
func Content(mediaType string, body []byte) Answer {
	return Answer{Header: map[string]string{"Content-Type": mediaType}, Body: body}
}

// Index answers 200 with an image index of the descriptors.
func Index(manifests ...ocispec.Descriptor) Answer {
	if manifests == nil {
		manifests = []ocispec.Descriptor{} // null is another answer
	}
	body, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: manifests,
	})
	if err != nil {
		panic(err) // descriptors of the test's own making
	}
	return Content(ocispec.MediaTypeImageIndex, body)
}

// With returns the answer with one more header.
func (a Answer) With(key, value string) Answer {
	a.Header = maps.Clone(a.Header)
	if a.Header == nil {
		a.Header = map[string]string{}
	}
	a.Header[key] = value
	return a
}

// code returns the status that is sent, 0 where none is.
func (a Answer) code() int {
	switch {
	case a.Drop || a.Hang:
		return 0
	case a.Code == 0:
		return http.StatusOK
	}
	return a.Code
}

func (a Answer) write(w http.ResponseWriter, r *http.Request, closed <-chan struct{}) {
	gone := func(wait <-chan time.Time) bool {
		select {
		case <-wait:
			return false
		case <-r.Context().Done():
		case <-closed:
		}
		return true
	}
	if a.Drop {
		panic(http.ErrAbortHandler)
	}
	if a.Hang {
		gone(nil)
		panic(http.ErrAbortHandler)
	}
	for key, value := range a.Header {
		w.Header().Set(key, value)
	}
	switch {
	case a.Announce > 0:
		w.Header().Set("Content-Length", strconv.FormatInt(a.Announce, 10))
	case a.Announce == 0 && !a.Endless:
		w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	w.WriteHeader(a.code())
	flush := http.NewResponseController(w).Flush
	_ = flush() // a client that has left is no concern of the script
	for a.Endless && !gone(closedTime) {
		if _, err := w.Write(a.Body); err != nil {
			return
		}
	}
	if a.Drip == 0 {
		_, _ = w.Write(a.Body)
	} else {
		for i := range a.Body {
			_, _ = w.Write(a.Body[i : i+1])
			_ = flush()
			if gone(time.After(a.Drip)) {
				return
			}
		}
	}
	if a.Stall {
		_ = flush()
		gone(nil)
	}
}

// closedTime makes gone a poll.
var closedTime = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()
