// Command bench measures what a pull costs: with stock containerd, with this
// plugin, and by every other way to bring an image's referrers as well. It starts
// the daemons and the registries that it needs, runs all contenders in turn and
// prints its tables; with -write it puts them, and the charts, into the
// documentation. `make bench` runs it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
)

// options are those of the command line.
type options struct {
	short bool
	only  []string
	write string
	dir   string
}

func main() {
	var o options
	only := flag.String("only", "", "the parts to run, by key and separated by commas; empty means all")
	flag.BoolVar(&o.short, "short", false, "few rounds, and no large content")
	flag.StringVar(&o.write, "write", "", "the repository's folder, whose documentation gets the tables and charts")
	flag.StringVar(&o.dir, "dir", "", "where daemons live, but for those of the case on disk; empty means TMPDIR")
	flag.Parse()
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	_ = log.SetLevel("error") // containerd's client warns of each index that it pulls
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := o.run(namespaces.WithNamespace(ctx, "default")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o options) wants(key string) bool { return len(o.only) == 0 || slices.Contains(o.only, key) }

// run runs the parts, prints what they found and writes it down.
func (o options) run(ctx context.Context) error {
	r := report{map[string][]byte{}, map[string][]byte{}}
	for _, part := range []func(context.Context, report) error{o.traces, o.compareAll, o.scale} {
		if err := part(ctx, r); err != nil {
			return err
		}
	}
	if o.write == "" {
		return nil
	}
	return r.write(o.write)
}

// withDaemons calls use with a stock daemon and one with the plugin, on disk or where
// the options say.
func (o options) withDaemons(ctx context.Context, disk bool, plugin string, use func(stock, plugin *daemon.Daemon) error) (err error) {
	if o.dir != "" && !disk {
		before, set := os.LookupEnv("TMPDIR")
		if err := os.Setenv("TMPDIR", o.dir); err != nil {
			return err
		}
		defer func() {
			if !set {
				err = errors.Join(err, os.Unsetenv("TMPDIR"))
				return
			}
			err = errors.Join(err, os.Setenv("TMPDIR", before))
		}()
	}
	var started [2]*daemon.Daemon
	for i, config := range []daemon.Config{{LogLevel: "info"}, {LogLevel: "info", Disabled: daemon.Active, Plugin: plugin}} {
		d, err := daemon.Start(ctx, config)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Stop()) }()
		started[i] = d
	}
	return use(started[0], started[1])
}

// traces draws a pull by stock containerd and one by the plugin, of an image that is
// not there and of one that is.
func (o options) traces(ctx context.Context, r report) error {
	if !o.wants("waterfall") {
		return nil
	}
	return o.withDaemons(ctx, false, "", func(stock, plugin *daemon.Daemon) error {
		for _, s := range scenes {
			name, ok := map[string]string{"small-auth": "waterfall", "again": "waterfall-again"}[s.key]
			if !ok {
				continue
			}
			seen, err := traces(ctx, s, contenders(stock, plugin)[:2])
			if err != nil {
				return err
			}
			var text strings.Builder
			for _, t := range seen {
				fmt.Fprintln(&text, t)
			}
			fmt.Print(text.String())
			r.blocks[name] = []byte("```\n" + strings.TrimSpace(text.String()) + "\n```\n")
			r.files[name+".svg"] = waterfall(seen)
		}
		return nil
	})
}

// compareAll runs the scenes and reports them.
func (o options) compareAll(ctx context.Context, r report) error {
	var done []measured
	for _, disk := range []bool{false, true} {
		var run []scene
		for _, s := range scenes {
			if s.rounds(o.short) > 0 && o.wants(s.key) && s.disk == disk {
				run = append(run, s)
			}
		}
		if len(run) == 0 {
			continue
		}
		err := o.withDaemons(ctx, disk, "", func(stock, plugin *daemon.Daemon) error {
			for _, s := range run {
				results, err := compare(ctx, os.Stderr, s, s.rounds(o.short), contenders(stock, plugin))
				if err != nil {
					return err
				}
				done = append(done, measured{s, results})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(done) == 0 {
		return nil
	}
	var tables, held, brief bytes.Buffer
	for _, m := range done {
		table(&tables, m.scene, m.results)
	}
	targets(&held, done)
	short(&brief, done)
	fmt.Print(held.String() + tables.String())
	r.blocks["targets"], r.blocks["tables"], r.blocks["short"] = held.Bytes(), tables.Bytes(), brief.Bytes()
	r.files["performance.svg"] = bars(done)
	return nil
}

// scale measures how the plugin's pulls grow, and reports it.
func (o options) scale(ctx context.Context, r report) error {
	if !o.wants("scale") {
		return nil
	}
	return o.withDaemons(ctx, false, scaleConfig, func(_, plugin *daemon.Daemon) error {
		s, err := scale(ctx, os.Stderr, plugin, o.short)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		scaleTable(&out, s)
		fmt.Print(out.String())
		r.blocks["scale"] = out.Bytes()
		r.files["scale.svg"] = plot(s.points)
		return nil
	})
}
