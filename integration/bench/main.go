// Command bench measures what a pull costs over a network: with stock containerd, with
// this plugin, and by every other way to bring an image's referrers as well. It starts
// the daemons, the registries and the links to them that it needs, runs all contenders
// in turn and prints its tables; with -write it puts them, and the charts, into the
// documentation. `make bench` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
)

// options are those of the command line.
type options struct {
	scenes, contenders string
	rounds             int
	roundTrip          time.Duration
	short, trace       bool
	write, dir         string
	key                *signingKey // of the scenes that are signed
}

func main() {
	var o options
	flag.StringVar(&o.scenes, "scene", "", "the scenes to run, by keys or globs and separated by commas; empty means all: "+strings.Join(keys(), ", "))
	flag.StringVar(&o.contenders, "contender", "", "the contenders of them, in the same way; empty means all: "+strings.Join(append(append(three, enforcingKey), everyone[2:]...), ", "))
	flag.IntVar(&o.rounds, "runs", 0, "how often each contender pulls, after once to warm up; 0 means as often as the scene says")
	flag.DurationVar(&o.roundTrip, "rtt", 20*time.Millisecond, "the round-trip time of the link to the registry")
	flag.BoolVar(&o.trace, "trace", false, "list the requests of one pull of each scene instead")
	flag.BoolVar(&o.short, "short", false, "few rounds, and no large content")
	flag.StringVar(&o.write, "write", "", "the repository's folder, whose documentation gets the tables and charts")
	flag.StringVar(&o.dir, "dir", "", "where daemons live, but for those of the case on disk; empty means TMPDIR")
	flag.Parse()
	_ = log.SetLevel("error") // containerd's client warns of each index that it pulls
	// A pipe that is closed, as by head, kills it no longer: daemons leave nothing behind. To be
	// told of the signal would not do, which sockets of a daemon that was killed raise as well.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := o.run(namespaces.WithNamespace(ctx, "default")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// The parts beside the scenes.
const (
	waterfallKey = "waterfall"
	cpuKey       = "cpu"
	scaleKey     = "scale"
)

// keys are those of all scenes and parts.
func keys() []string {
	out := []string{waterfallKey}
	for _, s := range scenes {
		out = append(out, s.key)
	}
	return append(out, cpuKey, scaleKey)
}

// wants says whether a scene or part is to run.
func (o options) wants(key string) bool { return matches(o.scenes, key) }

func (o options) wantsContender(key string) bool { return matches(o.contenders, key) }

func matches(globs, key string) bool {
	return globs == "" || slices.ContainsFunc(strings.Split(globs, ","), func(glob string) bool {
		ok, err := path.Match(glob, key)
		return ok && err == nil
	})
}

// run runs the parts, prints what they found and writes it down.
func (o options) run(ctx context.Context) (err error) {
	if !slices.ContainsFunc(keys(), o.wants) {
		return fmt.Errorf("no scene is called %s; there are %s", o.scenes, strings.Join(keys(), ", "))
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.key, err = newSigningKey(dir); err != nil {
		return err
	}
	r := report{map[string][]byte{}, map[string][]byte{}}
	parts := []func(context.Context, report) error{o.drawWaterfalls, o.compareAll, o.measureCPU, o.measureScale}
	if o.trace {
		parts = []func(context.Context, report) error{o.listTraces}
	}
	for _, part := range parts {
		if err := part(ctx, r); err != nil {
			return err
		}
	}
	if o.write == "" {
		return nil
	}
	return r.write(o.write)
}
