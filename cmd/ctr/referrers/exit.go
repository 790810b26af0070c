package referrers

import (
	"errors"
	"fmt"
)

// What ctr exits with.
const (
	exitError     = 1
	exitUsage     = 2
	exitNone      = 3
	exitUnknown   = 4
	exitAmbiguous = 5
	exitRefused   = 6
)

// exitCodes is their description in every command's help.
const exitCodes = `Exit codes:
  0  done
  1  an error
  2  the command line is wrong
  3  nothing was found; of verify: no rule verifies the image
  4  the answer is incomplete: a registry failed, a limit was reached, or none was asked
  5  several match, and one has to be chosen
  6  something that the daemon's rule requires is missing, its evidence does not hold, or on_error = "fail" and a subject is unknown`

// codedError is an error with an exit code. It is no cli.ExitCoder: the cli would
// print it itself, not as ctr does.
type codedError struct {
	code int
	err  error
}

// Error is fit for a terminal: part of it may come from a registry.
func (e *codedError) Error() string { return printable(e.err.Error()) }

func (e *codedError) Unwrap() error { return e.err }

func exitf(code int, format string, args ...any) error {
	return &codedError{code, fmt.Errorf(format, args...)}
}

func usagef(format string, args ...any) error { return exitf(exitUsage, format, args...) }

// shown makes an error fit for a terminal.
func shown(err error) error {
	if err == nil {
		return nil
	}
	return &codedError{ExitCode(err), err}
}

// ExitCode returns what ctr exits with for the error of a command, 0 for nil.
func ExitCode(err error) int {
	var coded *codedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		return coded.code
	default:
		return exitError
	}
}
