package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// maxNames is how many names the object that is being read may have, with those of the objects
// that it lies in: they are held to find one that stands there twice. An SBOM has many objects,
// of few names each.
const maxNames = 65_536

// CheckJSON reports whether the data is one JSON value in which no object has a name twice: two
// readers would see two values.
func CheckJSON(data []byte) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data))
	var names counter
	for values := 0; ; {
		_, err := dec.ReadToken()
		switch {
		case errors.Is(err, io.EOF) && values == 1:
			return nil
		case err != nil || values == 1:
			return errors.New("it is no JSON, or has a name twice")
		case dec.StackDepth() == 0:
			values++
		}
		if names.count(dec) > maxNames {
			return fmt.Errorf("an object has more than %d names", maxNames)
		}
	}
}

// counter counts the names of the objects that a decoder is in, each by its depth.
type counter struct {
	byDepth []int
	sum     int
}

// count returns how many names there are, now that a token has been read.
func (c *counter) count(dec *jsontext.Decoder) int {
	depth := dec.StackDepth()
	for len(c.byDepth) > depth {
		c.sum -= c.byDepth[len(c.byDepth)-1]
		c.byDepth = c.byDepth[:len(c.byDepth)-1]
	}
	for len(c.byDepth) < depth {
		c.byDepth = append(c.byDepth, 0)
	}
	if kind, read := dec.StackIndex(depth); depth > 0 && kind == '{' && read%2 == 1 {
		c.byDepth[depth-1]++
		c.sum++
	}
	return c.sum
}
