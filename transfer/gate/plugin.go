package gate

import "github.com/containerd/plugin"

// PluginType is the type of the plugins that tell a Gate of containers. The instance of each
// is a Connector.
const PluginType plugin.Type = "io.transfer-referrers.gate.v1"

// Provider is what such a plugin finds the Gate by: the instance of the plugin
// io.containerd.transfer.v1.referrers is one. The Gate is nil where pulls are refused as well.
type Provider interface {
	Gate() *Gate
}

// Connector tells a Gate of containers.
type Connector interface {
	// GateStatus says in a few words whether containers are judged, for the line that says
	// what the daemon enforces.
	GateStatus() string
}
