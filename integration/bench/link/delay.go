package link

import (
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// segmentSize bounds what is read at once, in bytes.
	segmentSize = 64 << 10
	// inFlight bounds the segments on their way: 64 MiB in 10 ms, more than one
	// machine brings about. A server that writes faster is held up.
	inFlight = 1024
)

// segment is what was read at once, and when it arrives.
type segment struct {
	due  time.Time
	data []byte // of a buffer of segmentSize
}

var buffers = sync.Pool{New: func() any { return make([]byte, segmentSize) }}

// carry writes to one end what it reads from the other, each segment after the
// delay, the first ones as if they had been read at notBefore. Segments follow each
// other as they came: it is a delay line, in which any number of them are on their
// way. It returns nil at the end of the stream, and closes from where nobody takes what
// it reads.
func carry(to io.Writer, from io.ReadCloser, delay time.Duration, notBefore time.Time) error {
	line, failed := make(chan segment, inFlight), make(chan error, 1)
	go func() { failed <- deliver(to, from, line) }()
	var err error
	for err == nil {
		buffer := buffers.Get().([]byte)
		var n int
		n, err = from.Read(buffer)
		sent := time.Now()
		if sent.Before(notBefore) {
			sent = notBefore
		}
		line <- segment{sent.Add(delay), buffer[:n]}
	}
	close(line)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, <-failed)
}

// deliver writes the segments when they are due. The last one, which may be empty,
// is the end of the stream.
func deliver(to io.Writer, from io.Closer, line <-chan segment) error {
	var err error
	for s := range line {
		time.Sleep(time.Until(s.due))
		if err == nil && len(s.data) > 0 {
			if _, err = to.Write(s.data); err != nil {
				from.Close()
			}
		}
		buffers.Put(s.data[:segmentSize]) //nolint:staticcheck // SA6002: 24 bytes for each 64 KiB
	}
	return err
}
