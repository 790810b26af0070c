package gather

import (
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/reference"
)

// sourceLabel is the label that says where content came from
// (containerd.io/distribution.source.<registry> = repositories), by which a push
// can mount it across repositories.
type sourceLabel struct{ key, repository string }

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
	return sourceLabel{labels.LabelDistributionSource + "." + strings.Trim(registry, "[]"), repository}
}

// add puts the label into add, with the repositories that existing names as
// well. A label that would grow too long is left as it is.
func (s sourceLabel) add(add, existing map[string]string) {
	if s.repository == "" {
		return
	}
	var repositories []string
	if have := existing[s.key]; have != "" {
		repositories = strings.Split(have, ",")
	}
	repositories = append(repositories, s.repository)
	slices.Sort(repositories)
	value := strings.Join(slices.Compact(repositories), ",")
	if labels.Validate(s.key, value) == nil {
		add[s.key] = value
	}
}
