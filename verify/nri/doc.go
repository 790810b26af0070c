// Package nri has the gate of package gate judge the containers of CRI: as a plugin of NRI,
// within the daemon, over the daemon's own socket of NRI. Importing the package registers it
// with containerd.
//
// containerd has no way to hand a plugin to its NRI from within, so that the connection is made
// like that of a stranger, and made again whenever it is lost. While there is none, NRI's default
// validator refuses containers if it requires the plugin by its name, [Name]; else nothing does.
//
// Each container is judged where it is created, and NRI is told that the plugin validates what
// others adjust as well: a connection that breaks in between refuses the container, where NRI
// would go on without the verdict.
//
// NRI exists on Linux alone.
package nri

// Name is the plugin's name in NRI, Index its place among others: it is asked first.
const (
	Name  = "referrers-gate"
	Index = "00"
)
