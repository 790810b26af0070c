// Package referrers is a containerd plugin that brings the referrers of an image
// - signatures, attestations, SBOMs - to the node with the image.
//
// Import it for its side effect, next to containerd's own plugins, and disable
// the two stock plugins that it replaces:
//
//	disabled_plugins = ["io.containerd.transfer.v1.local", "io.containerd.grpc.v1.transfer"]
//
// Until then it changes nothing. With only one of them disabled it fails to load, and says
// what to add. It registers io.containerd.transfer.v1.referrers, which wraps the
// disabled local transfer plugin, and io.containerd.grpc.v1.transfer-referrers, which
// serves its gRPC API. Rules that verify need a verifier, which the module verify has.
//
// The code, in the order in which a pull passes through it:
//
//	transfer/service    the gRPC service: messages in, sources out
//	transfer            the wrapper around containerd's local transfer service
//	transfer/source     the image source: registry hosts, credentials, wire form
//	transfer/policy     what to take: rules, sets, decisions with their reasons
//	transfer/ahead      opening an image's layers before its config is known
//	transfer/gather     one pull's work: subjects in, content store out
//	transfer/registry   one client: what refers to a subject, bounded requests
//	transfer/outcome    what a pull found, took and skipped, and why
//	transfer/trust      whom the operator trusts: keys, roots, identities
//	transfer/judge      examining an image's evidence by those trusts
//	transfer/verdict    requirements and evidence in, a verdict with reasons out
//	transfer/gate       judging a container's image at its creation
//	transfer/evidence   what may prove something, and what it proves
//	transfer/artifact   facts about manifests from untrusted sources
//	transfer/labels     the labels that tie referrers to their subjects
//	transfer/stored     tying referrers in the store and reading them back
//	transfer/archive    exporting images with their referrers, and tying an import's
//	transfer/explain    what a pull would take, and why
//	transfer/metrics    counting what pulls did
//	transfer/push       carrying stored referrers after a pushed image
package referrers

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/core/streaming"
	ctransfer "github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/prometheus/client_golang/prometheus"
	bolt "go.etcd.io/bbolt"

	// The stock plugins must be registered, and so initialized, before these:
	// whether they are there tells whether they are enabled.
	_ "github.com/containerd/containerd/v2/plugins/services/transfer"
	_ "github.com/containerd/containerd/v2/plugins/transfer"

	"github.com/transfer-referrers/transfer-referrers/transfer"
	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/metrics"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/service"
	"github.com/transfer-referrers/transfer-referrers/transfer/trust"
)

const (
	transferID = "referrers"
	serviceID  = "transfer-referrers"

	stockTransferID = "local"
	stockServiceID  = "transfer"

	pluginName    = "io.containerd.transfer.v1.referrers"
	stockTransfer = "io.containerd.transfer.v1.local"
	stockService  = "io.containerd.grpc.v1.transfer"
)

func init() {
	table := defaults()
	registry.Register(&plugin.Registration{
		Type: plugins.TransferPlugin,
		ID:   transferID,
		Requires: []plugin.Type{ // those of the plugin that it wraps, and two more
			plugins.EventPlugin,
			plugins.LeasePlugin,
			plugins.MetadataPlugin,
			plugins.DiffPlugin,
			plugins.ImageVerifierPlugin,
			plugins.SnapshotPlugin,
			plugins.EventPlugin,
			trust.VerifierPlugin,
		},
		Config: &table,
		InitFn: initTransfer,
	})
	registry.Register(&plugin.Registration{
		Type: plugins.GRPCPlugin,
		ID:   serviceID,
		Requires: []plugin.Type{
			plugins.TransferPlugin,
			plugins.StreamingPlugin,
			plugins.CRIServicePlugin, // looked at, where there is one
			gate.PluginType,          // as well
		},
		InitFn: initService,
	})
}

// enabled reports whether the operator left a stock plugin enabled.
func enabled(ic *plugin.InitContext, t plugin.Type, id string) bool {
	return ic.Plugins().Get(t, id) != nil
}

func initTransfer(ic *plugin.InitContext) (any, error) {
	if enabled(ic, plugins.TransferPlugin, stockTransferID) {
		return nil, fmt.Errorf("referrers are not active: to have pulls bring them, add %q and %q to disabled_plugins: %w", stockTransfer, stockService, plugin.ErrSkipPlugin)
	}
	config, err := parseConfig(*ic.Config.(*map[string]any))
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", pluginName, err)
	}
	rules, err := policy.New(config.Rules)
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", pluginName, err)
	}
	trusts, err := openTrusts(ic, config, rules)
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", pluginName, err)
	}
	local, snapshotters, err := initLocal(ic, config.Local)
	if err != nil {
		return nil, err
	}
	needed, err := singles(ic, plugins.MetadataPlugin, plugins.LeasePlugin, plugins.EventPlugin)
	if err != nil {
		return nil, err
	}
	m := needed[plugins.MetadataPlugin].(*metadata.DB)
	// The endpoint of containerd's own metrics serves this registry.
	counted, err := metrics.Register(prometheus.DefaultRegisterer)
	if err != nil {
		return nil, err
	}
	counted.SetTrusts(trustState(trusts))
	store, images, judges := m.ContentStore(), metadata.NewImageStore(m), judge.New(trusts, counted)
	g := gate.New(gate.Config{Mode: config.Gate, Policy: rules, Judge: judges, Images: images, Store: store, Observer: counted})
	watchImages(ic, g)
	return &guard{ic: ic, active: activeLine(rules, trusts), gate: g, Transferrer: transfer.New(transfer.Config{
		Local:       local,
		Store:       store,
		Transaction: transactions(m),
		Images:      images,
		Leases:      needed[plugins.LeasePlugin].(leases.Manager),
		Policy:      rules,
		Judge:       judges,
		Limits:      config.limits(),
		Cosign:      config.CosignTags,
		Export:      config.Export,
		Metrics:     counted,
		Push:        config.Push,
		Events:      needed[plugins.EventPlugin].(events.Publisher),

		Snapshotters: snapshotters,
	})}, nil
}

// singles returns the only instance of each type of plugin.
func singles(ic *plugin.InitContext, types ...plugin.Type) (map[plugin.Type]any, error) {
	out := map[plugin.Type]any{}
	for _, t := range types {
		instance, err := ic.GetSingle(t)
		if err != nil {
			return nil, err
		}
		out[t] = instance
	}
	return out, nil
}

// watchImages has the gate read the records of images again when one has changed, and else not.
func watchImages(ic *plugin.InitContext, g *gate.Gate) {
	if !g.Judges() {
		return
	}
	if e, err := ic.GetSingle(plugins.EventPlugin); err == nil {
		if exchange, ok := e.(events.Subscriber); ok {
			g.Watch(exchange.Subscribe(ic.Context, gate.ImageEvents))
		}
	}
}

// transactions has the stores of the database, which look for a transaction in the context,
// write in one.
func transactions(db *metadata.DB) func(context.Context, func(context.Context) error) error {
	return func(ctx context.Context, f func(context.Context) error) error {
		return db.Update(func(tx *bolt.Tx) error { return f(boltutil.WithTransaction(ctx, tx)) })
	}
}

// guard refuses every transfer where the stock service is enabled, which loses what the
// client sent before a rule can apply. The service is initialized after the transfer plugins
// that it serves, so initTransfer cannot know of it.
type guard struct {
	ctransfer.Transferrer
	ic     *plugin.InitContext
	active string // says in one line what is enforced
	gate   *gate.Gate
}

var _ gate.Provider = (*guard)(nil)

// Gate implements gate.Provider.
func (g *guard) Gate() *gate.Gate { return g.gate }

func (g *guard) Transfer(ctx context.Context, src, dst any, opts ...ctransfer.Opt) error {
	if enabled(g.ic, plugins.GRPCPlugin, stockServiceID) {
		return fmt.Errorf("%w: %w", errTransferAlone, errdefs.ErrFailedPrecondition)
	}
	return g.Transferrer.Transfer(ctx, src, dst, opts...)
}

// Only one of the two stock plugins is disabled.
var (
	errTransferAlone = fmt.Errorf("every transfer is refused, since of the two stock plugins only %q is disabled: add %q to disabled_plugins in containerd's config.toml", stockTransfer, stockService)
	errServiceAlone  = fmt.Errorf("referrers are not active, since of the two stock plugins only %q is disabled: add %q to disabled_plugins in containerd's config.toml", stockService, stockTransfer)
)

// initLocal initializes the disabled local plugin from its own registration, so
// that its settings, defaults and unpack configuration stay containerd's own. It also returns
// the snapshotters that need the content of every layer.
func initLocal(ic *plugin.InitContext, settings map[string]any) (ctransfer.Transferrer, []string, error) {
	for _, r := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		if r.Type != plugins.TransferPlugin || r.ID != stockTransferID {
			continue
		}
		config := copyConfig(r.Config)
		if _, err := decode(settings, config); err != nil {
			return nil, nil, fmt.Errorf("configuration of %s, table local: %w", pluginName, err)
		}
		lic := *ic
		lic.Config = config
		instance, err := r.InitFn(&lic)
		if err != nil {
			return nil, nil, fmt.Errorf("initialize %s: %w", stockTransfer, err)
		}
		return instance.(ctransfer.Transferrer), needLayers(ic, config), nil
	}
	return nil, nil, fmt.Errorf("%s is not registered: %w", stockTransfer, plugin.ErrPluginNotFound)
}

// copyConfig copies what a plugin's registered configuration points at, so that its
// defaults stay what they are.
func copyConfig(config any) any {
	v := reflect.New(reflect.TypeOf(config).Elem())
	v.Elem().Set(reflect.ValueOf(config).Elem())
	return v.Interface()
}

func initService(ic *plugin.InitContext) (any, error) {
	p := ic.Plugins().Get(plugins.TransferPlugin, transferID)
	inert := p == nil || plugin.IsSkipPlugin(p.Err())
	stock := enabled(ic, plugins.GRPCPlugin, stockServiceID)
	if !inert && p.Err() == nil {
		warnOfCRI(ic)
	}
	switch {
	case inert && stock: // of which the transfer plugin has said what to write
		return nil, fmt.Errorf("the stock service is enabled: %w", plugin.ErrSkipPlugin)
	case p == nil:
		return nil, fmt.Errorf("no transfer plugin to serve: remove %q from disabled_plugins", pluginName)
	case inert:
		log.G(ic.Context).Error(errServiceAlone)
		if hasRules(p) { // CRI would pull past them, through the stock transfer plugin
			ic.RegisterReadiness() // containerd ends where a plugin fails that did
		}
		return nil, errServiceAlone
	case p.Err() != nil:
		return nil, fmt.Errorf("no transfer plugin to serve: %w", p.Err())
	case stock:
		log.G(ic.Context).Error(errTransferAlone)
		return nil, errTransferAlone
	}
	t, err := ic.GetSingle(plugins.TransferPlugin)
	if errors.Is(err, plugin.ErrPluginMultipleInstances) {
		return nil, fmt.Errorf("several transfer plugins are enabled; disable all but one: %w", err)
	}
	if err != nil {
		return nil, err
	}
	s, err := ic.GetByID(plugins.StreamingPlugin, "manager")
	if err != nil {
		return nil, err
	}
	active := "pulls through the transfer service bring them"
	if g, ok := t.(*guard); ok {
		active = g.active + gateStatus(ic, g.gate)
	}
	log.G(ic.Context).Info("referrers are active: " + active)
	return service.New(t.(ctransfer.Transferrer), s.(streaming.StreamManager)), nil
}

// hasRules reports whether the operator wrote rules, or a table that cannot be read.
func hasRules(p *plugin.Plugin) bool {
	config, err := parseConfig(*p.Config.(*map[string]any))
	return err != nil || len(config.Rules) > 0
}
