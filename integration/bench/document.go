package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// report is what a run found, by the name of the block or file that it goes to.
type report struct {
	blocks map[string][]byte // in docs/performance.md and README.md
	files  map[string][]byte // in docs/
}

// replace puts the blocks into the document, each between its marks
// "<!-- bench NAME -->" and "<!-- end -->".
func (r report) replace(document []byte) ([]byte, error) {
	for name, block := range r.blocks {
		mark, end := []byte("<!-- bench "+name+" -->\n"), []byte("<!-- end -->")
		at := bytes.Index(document, mark)
		if at < 0 {
			continue
		}
		at += len(mark)
		length := bytes.Index(document[at:], end)
		if length < 0 {
			return nil, fmt.Errorf("block %q has no end", name)
		}
		document = bytes.Join([][]byte{document[:at], block, document[at+length:]}, nil)
	}
	return document, nil
}

// write puts the report into the repository's documentation.
func (r report) write(root string) error {
	for _, name := range []string{"docs/performance.md", "README.md"} {
		path := filepath.Join(root, name)
		document, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if document, err = r.replace(document); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(path, document, 0o644); err != nil {
			return err
		}
	}
	for name, data := range r.files {
		if err := os.WriteFile(filepath.Join(root, "docs", name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
