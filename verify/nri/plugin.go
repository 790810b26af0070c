//go:build linux

package nri

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/pelletier/go-toml/v2"

	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
)

const (
	transferID = "referrers"
	nriID      = "nri"
	nriTable   = "io.containerd.nri.v1.nri"
)

func init() {
	registry.Register(&plugin.Registration{
		Type:     gate.PluginType,
		ID:       nriID,
		Requires: []plugin.Type{plugins.TransferPlugin, plugins.NRIApiPlugin},
		InitFn:   initGate,
	})
}

func initGate(ic *plugin.InitContext) (any, error) {
	provider, err := provider(ic)
	if err != nil {
		return nil, err
	}
	g := provider.Gate()
	s := look(ic)
	c := &connector{gate: g, path: s.SocketPath, status: s.status(g)}
	if why := s.inactive(); s.wanted(g) && why != "" && g.Mode() != gate.Off {
		log.G(ic.Context).Warnf("referrers: the gate is not active, and containers are created unjudged: %s", why)
	}
	if g.Mode() == gate.Off && s.required() {
		log.G(ic.Context).Errorf("referrers: no container can be created: NRI's default validator requires %q, and gate = %q: write another gate, or take it out of required_plugins", Name, gate.Off)
	}
	if !s.connects(g) {
		return c, nil
	}
	if g.Refuses() && !s.required() {
		log.G(ic.Context).Warnf("referrers: while the gate is not connected to NRI, as at each start, containers are created unjudged: to have NRI refuse them then, write in containerd's config.toml: %s", requirement)
	}
	c.start(context.WithoutCancel(ic.Context))
	return c, nil
}

// provider returns the plugin that has the rules. Where it is not active it has said why.
func provider(ic *plugin.InitContext) (gate.Provider, error) {
	if p := ic.Plugins().Get(plugins.TransferPlugin, transferID); p != nil {
		if instance, err := p.Instance(); err == nil {
			if provider, ok := instance.(gate.Provider); ok {
				return provider, nil
			}
		}
	}
	return nil, fmt.Errorf("there are no rules to judge containers by: %w", plugin.ErrSkipPlugin)
}

// requirement is what has NRI refuse containers while the gate is not there.
const requirement = `[plugins."` + nriTable + `".default_validator] with enable = true and required_plugins = ["` + Name + `"]`

// settings are those of NRI that matter here. Their type is internal to containerd, their keys
// are not.
type settings struct {
	Disable            bool   `toml:"disable"`
	SocketPath         string `toml:"socket_path"`
	DisableConnections bool   `toml:"disable_connections"`
	DefaultValidator   struct {
		Enable          bool     `toml:"enable"`
		RequiredPlugins []string `toml:"required_plugins"`
	} `toml:"default_validator"`

	missing  string // why there is no NRI, "" where there is
	nameless bool   // it does not say which image a container has
}

// look reads the settings of the daemon's NRI.
func look(ic *plugin.InitContext) settings {
	p := ic.Plugins().Get(plugins.NRIApiPlugin, nriID)
	if p == nil {
		return settings{missing: fmt.Sprintf("there is no NRI: remove %q from disabled_plugins", nriTable)}
	}
	instance, err := p.Instance()
	if err != nil {
		return settings{missing: "NRI did not load: " + err.Error()}
	}
	var s settings
	b, err := toml.Marshal(p.Config)
	if err == nil {
		err = toml.Unmarshal(b, &s)
	}
	if err != nil {
		return settings{missing: "the configuration of NRI cannot be read: " + err.Error()}
	}
	if s.SocketPath == "" {
		s.SocketPath = api.DefaultSocketPath
	}
	s.nameless = !namesImages(instance)
	return s
}

// namesImages reports whether containerd tells NRI which image a container has, as it does from
// v2.4 on: what it takes for a container, a type internal to it, has a method for that then.
func namesImages(instance any) bool {
	create, ok := reflect.TypeOf(instance).MethodByName("CreateContainer")
	if !ok || create.Type.NumIn() != 4 || create.Type.In(3).Kind() != reflect.Interface {
		return true // each container is looked at in any case
	}
	_, ok = create.Type.In(3).MethodByName("GetImage")
	return ok
}

// inactive says why the gate cannot be active, "" where it can.
func (s settings) inactive() string {
	switch {
	case s.missing != "":
		return s.missing
	case s.Disable:
		return fmt.Sprintf("NRI is disabled: remove disable = true from [plugins.%q]", nriTable)
	case s.DisableConnections:
		return fmt.Sprintf("NRI takes no connections: remove disable_connections = true from [plugins.%q]", nriTable)
	case s.nameless:
		return "this containerd does not tell NRI which image a container has: containerd v2.4 or later does"
	}
	return ""
}

// required reports whether NRI refuses containers while the gate is not there.
func (s settings) required() bool {
	return s.DefaultValidator.Enable && slices.Contains(s.DefaultValidator.RequiredPlugins, Name)
}

// wanted reports whether there is something to judge, or NRI asks for the plugin.
func (s settings) wanted(g *gate.Gate) bool { return g.Judges() || s.required() }

// connects reports whether the gate is to connect.
func (s settings) connects(g *gate.Gate) bool {
	return g.Mode() != gate.Off && s.wanted(g) && s.inactive() == ""
}

// status says in a few words whether containers are judged.
func (s settings) status(g *gate.Gate) string {
	switch why := s.inactive(); {
	case g.Mode() == gate.Off:
		return "off"
	case !s.wanted(g):
		return ""
	case why != "":
		return "not active: " + why
	case s.required():
		return fmt.Sprintf("%s (NRI plugin %s-%s, which NRI's default validator requires)", g.Mode(), Index, Name)
	}
	return fmt.Sprintf("%s (NRI plugin %s-%s, which NRI's default validator does not require)", g.Mode(), Index, Name)
}
