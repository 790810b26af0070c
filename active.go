package referrers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/plugin"

	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

// openTrusts reads whom the operator trusts, with the verifiers that the daemon was built
// with, and holds the rules against them.
func openTrusts(ic *plugin.InitContext, config *Config, rules *policy.Policy) (*trust.Store, error) {
	instances, err := ic.GetByType(trust.VerifierPlugin)
	if err != nil && !errors.Is(err, plugin.ErrPluginNotFound) {
		return nil, err
	}
	var loaders []trust.Loader
	for _, id := range slices.Sorted(maps.Keys(instances)) {
		if l, ok := instances[id].(trust.Loader); ok {
			loaders = append(loaders, l)
		}
	}
	trusts, err := trust.Open(config.Trust, loaders...)
	if err != nil {
		return nil, err
	}
	return trusts, trusts.Check(rules)
}

// trustState returns what tells metrics of the trusts.
func trustState(trusts *trust.Store) func() (time.Time, int) {
	return func() (expires time.Time, broken int) {
		now := trusts.Now(context.Background())
		for _, t := range now.States() {
			if t.Broken != "" {
				broken++
			}
		}
		return now.Expires(), broken
	}
}

// shortFingerprint is how many characters of a trust's fingerprint the daemon's line shows.
const shortFingerprint = len("sha256:") + 16

// activeLine says whether the daemon enforces anything, and by whom.
func activeLine(rules *policy.Policy, trusts *trust.Store) string {
	s := rules.Summary()
	line := "no rules configured, built-in rule: it brings signatures and attestations of every image, and enforces nothing"
	if !s.BuiltIn {
		line = fmt.Sprintf("rules: %d (require: %d, verify with enforce: %d, verify with warn: %d, deny: %d)", s.Rules, s.Requiring, s.Enforcing, s.Warning, s.Denying)
	}
	var states []string
	for _, t := range trusts.Now(context.Background()).States() {
		until := ""
		if end := t.Facts.Expires; !end.IsZero() {
			until = ", until " + end.UTC().Format(time.DateOnly)
		}
		states = append(states, fmt.Sprintf("%s (%s, %s%s)", t.Name, t.Kind, t.Fingerprint[:shortFingerprint], until))
	}
	if len(states) > 0 {
		line += "; trusts: " + strings.Join(states, ", ")
	}
	return line
}

// gateStatus says whether the creation of containers is judged, "" where no rule asks for it.
func gateStatus(ic *plugin.InitContext, g *gate.Gate) string {
	instances, err := ic.GetByType(gate.PluginType)
	if err != nil && !errors.Is(err, plugin.ErrPluginNotFound) {
		return "; gate: not active: " + err.Error()
	}
	for _, id := range slices.Sorted(maps.Keys(instances)) {
		if c, ok := instances[id].(gate.Connector); ok {
			if status := c.GateStatus(); status != "" {
				return "; gate: " + status
			}
			return ""
		}
	}
	if g.Judges() {
		return "; gate: not active: this containerd was built without it, import the module verify"
	}
	return ""
}
