package push

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
)

// maxEntries is how many entries of a fallback tag are read; a listing of fewer is
// truncated already.
const maxEntries = 20_000

// index is an image index of which nothing is lost that is not known here: fields,
// their order, and entries stay as they were written.
type index struct {
	keys    []string
	fields  map[string]json.RawMessage
	entries []json.RawMessage
}

const manifestsKey = "manifests"

func newIndex() *index {
	return &index{
		keys: []string{"schemaVersion", "mediaType", manifestsKey},
		fields: map[string]json.RawMessage{
			"schemaVersion": json.RawMessage("2"),
			"mediaType":     json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`),
		},
	}
}

// parseIndex reads an index. The error is errdefs.ErrInvalidArgument for what is
// none.
func parseIndex(data []byte) (*index, error) {
	if _, err := artifact.ParseIndex(data); err != nil {
		return nil, err
	}
	i := &index{fields: map[string]json.RawMessage{}}
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil { // "{", ParseIndex says
		return nil, err
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, _ := token.(string)
		if _, twice := i.fields[key]; twice {
			return nil, fmt.Errorf("index has the field %.80q twice: %w", key, errdefs.ErrInvalidArgument)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		i.keys, i.fields[key] = append(i.keys, key), value
	}
	if i.fields[manifestsKey] == nil { // ParseIndex takes it in any case
		return nil, fmt.Errorf("index without the field %q: %w", manifestsKey, errdefs.ErrInvalidArgument)
	}
	if err := i.readEntries(); err != nil {
		return nil, err
	}
	return i, nil
}

func (i *index) readEntries() error {
	value := bytes.TrimSpace(i.fields[manifestsKey])
	if bytes.Equal(value, []byte("null")) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(value))
	if open, err := dec.Token(); err != nil || open != json.Delim('[') {
		return fmt.Errorf("its manifests are not an array: %w", errdefs.ErrInvalidArgument)
	}
	for dec.More() {
		if len(i.entries) == maxEntries {
			return fmt.Errorf("index has more than %d entries; remove referrers from the registry: %w", maxEntries, errdefs.ErrResourceExhausted)
		}
		var entry json.RawMessage
		if err := dec.Decode(&entry); err != nil {
			return err
		}
		i.entries = append(i.entries, entry)
	}
	return nil
}

// encode writes the index.
func (i *index) encode() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for n, key := range i.keys {
		if n > 0 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		out.Write(name)
		out.WriteByte(':')
		if key != manifestsKey {
			out.Write(i.fields[key])
			continue
		}
		out.WriteByte('[')
		out.Write(bytes.Join(toBytes(i.entries), []byte{','}))
		out.WriteByte(']')
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

func toBytes(entries []json.RawMessage) [][]byte {
	out := make([][]byte, len(entries))
	for n, e := range entries {
		out[n] = e
	}
	return out
}

// entryList are entries that must be in a fallback tag, in the order in which they were
// seen.
type entryList struct {
	order   []digest.Digest
	entries map[digest.Digest]json.RawMessage
}

// add adds an entry of ours.
func (l *entryList) add(desc ocispec.Descriptor) error {
	data, err := json.Marshal(desc)
	if err != nil {
		return err
	}
	l.see(desc.Digest, data)
	return nil
}

func (l *entryList) see(dgst digest.Digest, entry json.RawMessage) {
	if l.entries == nil {
		l.entries = map[digest.Digest]json.RawMessage{}
	}
	if _, known := l.entries[dgst]; !known {
		l.order = append(l.order, dgst)
		l.entries[dgst] = entry
	}
}

// join takes note of what the index holds, adds to it what it lacks, and says whether
// that was anything.
func (l *entryList) join(i *index) (missing bool) {
	there := map[digest.Digest]bool{}
	for _, e := range i.entries {
		if dgst, err := entryDigest(e); err == nil {
			there[dgst] = true
			l.see(dgst, e)
		}
	}
	for _, dgst := range l.order {
		if !there[dgst] {
			i.entries, missing = append(i.entries, l.entries[dgst]), true
		}
	}
	return missing
}

// entryDigest returns the digest of an entry, if readers that are strict find one.
func entryDigest(entry json.RawMessage) (digest.Digest, error) {
	desc, err := artifact.ParseDescriptor(entry)
	if err == nil && desc.Digest == "" {
		err = errors.New("no digest")
	}
	return desc.Digest, err
}
