package gather

import (
	"slices"
	"strings"

	clabels "github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/reference"

	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// sourceLabel is the label that says where content came from
// (containerd.io/distribution.source.<registry> = repositories), by which a push
// can mount it across repositories.
type sourceLabel struct {
	key, repository string
	locator         string // for labels.SourceKey
}

func newSourceLabel(ref string) sourceLabel {
	spec, err := reference.Parse(ref)
	if err != nil {
		return sourceLabel{}
	}
	registry, repository, _ := strings.Cut(spec.Locator, "/")
	// containerd leaves out the port (docker.AppendDistributionSourceLabel).
	if i := strings.LastIndexByte(registry, ':'); i >= 0 && !strings.HasSuffix(registry, "]") {
		registry = registry[:i]
	}
	return sourceLabel{clabels.LabelDistributionSource + "." + strings.Trim(registry, "[]"), repository, spec.Locator}
}

// add puts the labels into add, with the repositories that existing names as
// well. A label that would grow too long is left as it is.
func (s sourceLabel) add(add, existing map[string]string) {
	if s.repository == "" {
		return
	}
	for key, repository := range map[string]string{s.key: s.repository, labels.SourceKey: s.locator} {
		var repositories []string
		if have := existing[key]; have != "" {
			repositories = strings.Split(have, ",")
		}
		repositories = append(repositories, repository)
		slices.Sort(repositories)
		value := strings.Join(slices.Compact(repositories), ",")
		if clabels.Validate(key, value) == nil {
			add[key] = value
		}
	}
}

// only reports whether content came from the source's repository and no other.
func (s sourceLabel) only(existing map[string]string) bool {
	return s.locator != "" && existing[labels.SourceKey] == s.locator
}

// among reports whether content came from the source's repository, from others or not.
func (s sourceLabel) among(existing map[string]string) bool {
	return s.locator != "" && slices.Contains(strings.Split(existing[labels.SourceKey], ","), s.locator)
}
