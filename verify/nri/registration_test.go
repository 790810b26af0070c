//go:build linux && !race

package nri

import (
	"testing"
	"time"
)

// The same where connections break while NRI registers the plugin. NRI v0.12.3 itself races
// then, between the plugin's name and the log line that has it.
func TestRegistrationThatBreaksRefuses(t *testing.T) {
	breakConnections(t, &connection{}, func(cuts int) { time.Sleep(time.Duration(cuts%17) * time.Millisecond) })
}
