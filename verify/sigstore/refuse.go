package sigstore

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// refuse says what is wrong and what to do about it. Text of the network in either must be
// cut before.
func refuse(what, remedy string) error {
	return fmt.Errorf("%s; %s: %w", what, remedy, errdefs.ErrInvalidArgument)
}

// refuseFor is refuse with the error of a library, whose text may hold what the network says.
func refuseFor(what string, err error, remedy string) error {
	return refuse(what+": "+cut(err.Error()), remedy)
}

// tooMany refuses what exceeds a bound, with the number.
func tooMany(what string, n, most int) error {
	return refuse(fmt.Sprintf("%s: %d, more than %d", what, n, most), "attach evidence that is smaller")
}

// cut makes text of the network fit for an error.
func cut(text string) string { return fmt.Sprintf("%.200q", text) }
