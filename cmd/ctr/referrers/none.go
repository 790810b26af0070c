package referrers

import (
	"strings"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// noneStored is the error where no stored referrer is one of what was asked for. That
// none is stored says something of the registry only where it was learnt in full.
func noneStored(image *stored.Image, what []string) error {
	asked := "no referrer"
	if len(what) > 0 {
		asked = "no referrer that is " + strings.Join(what, " or ")
	}
	if image.Status != labels.Present && image.Status != labels.Absent {
		return exitf(exitUnknown, "%s is stored with image %s, and what its registry has is not known in full; `ctr referrers fetch %s` asks it", asked, image.Name, image.Name)
	}
	return exitf(exitNone, "%s is stored with image %s; `ctr referrers explain %s` tells what its registry has and what the rule leaves there", asked, image.Name, image.Name)
}
