package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// maxFile is how many bytes a file of a trust may have.
	maxFile = 4 << 20
	// maxFiles is how many files a trust may have, as notation's directory.
	maxFiles = 256
)

// seen is what tells whether a file has changed without reading it.
type seen struct {
	path string
	info fs.FileInfo
}

func (s seen) same(other seen) bool {
	return s.path == other.path && s.info.Size() == other.info.Size() && s.info.ModTime().Equal(other.info.ModTime()) && os.SameFile(s.info, other.info)
}

// look finds the files of a trust. Those of notation's directory are relative to it.
func (c Config) look() ([]seen, error) {
	if c.NotationDir != "" {
		return lookBelow(c.NotationDir)
	}
	var out []seen
	for _, path := range slices.Concat(c.Keys, c.TrustedRoot, c.NotationRoots) {
		info, err := stat(path)
		if err != nil {
			return nil, err
		}
		if err := checkFile(path, info); err != nil {
			return nil, err
		}
		out = append(out, seen{path, info})
	}
	return out, nil
}

func lookBelow(dir string) ([]seen, error) {
	info, err := stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is a file; notation_dir is the directory that holds trustpolicy.json: %w", dir, errdefs.ErrInvalidArgument)
	}
	var out []seen
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil || !isTrust(filepath.ToSlash(relative)) {
			return err // private keys and plugins of notation lie beside
		}
		info, err := os.Stat(path) // through links
		if err != nil || info.IsDir() {
			return err
		}
		if err := checkFile(path, info); err != nil {
			return err
		}
		if len(out) == maxFiles {
			return fmt.Errorf("%s holds more than %d files: leave what is no trust policy and no trust store elsewhere: %w", dir, maxFiles, errdefs.ErrInvalidArgument)
		}
		out = append(out, seen{filepath.ToSlash(relative), info})
		return nil
	})
	return out, err
}

// isTrust reports whether a file of notation's directory is a trust policy or of the trust
// store.
func isTrust(path string) bool {
	return path == "trustpolicy.json" || path == "trustpolicy.oci.json" || strings.HasPrefix(path, "truststore/x509/")
}

// stat says what to do where a file cannot be read.
func stat(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w; put the file there, or mend the path: %w", err, errdefs.ErrInvalidArgument)
	}
	return info, nil
}

// checkFile refuses what could block, or cannot be meant.
func checkFile(path string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return fmt.Errorf("%s is a directory: name the files in it: %w", path, errdefs.ErrInvalidArgument)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file: %w", path, errdefs.ErrInvalidArgument)
	case info.Size() == 0:
		return errEmpty(path)
	case info.Size() > maxFile:
		return fmt.Errorf("%s has %d bytes, the limit is %d; leave in it what is to be trusted: %w", path, info.Size(), maxFile, errdefs.ErrInvalidArgument)
	}
	return nil
}

func errEmpty(path string) error {
	return fmt.Errorf("%s is empty; put in it what is to be trusted: %w", path, errdefs.ErrInvalidArgument)
}

// read reads the files, and returns a fingerprint of all that they hold: the sha256 of their
// bytes, one file after the other. In notation's directory names have a meaning, and count.
func (c Config) read(list []seen) (files []File, fingerprint string, err error) {
	all := sha256.New()
	for _, s := range list {
		data, err := readFile(filepath.Join(c.NotationDir, filepath.FromSlash(s.path)))
		if err != nil {
			return nil, "", err
		}
		files = append(files, File{Path: s.path, Data: data})
		if c.NotationDir != "" {
			fmt.Fprintf(all, "%q %d\n", s.path, len(data))
		}
		all.Write(data)
	}
	return files, "sha256:" + hex.EncodeToString(all.Sum(nil)), nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) == 0:
		return nil, errEmpty(path)
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s has more than %d bytes: %w", path, maxFile, errdefs.ErrInvalidArgument)
	}
	return data, nil
}

// earliest returns the earlier of two times, of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
