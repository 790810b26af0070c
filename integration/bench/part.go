package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// onNodes calls use with the contenders, for the scenes in memory and then for those on
// disk, where there are any.
func (o options) onNodes(ctx context.Context, run []scene, use func(scene, []*contender) error) error {
	for _, disk := range []bool{false, true} {
		here := slices.DeleteFunc(slices.Clone(run), func(s scene) bool { return s.disk != disk })
		if len(here) == 0 {
			continue
		}
		err := o.withDaemons(ctx, disk, "", func(n nodes) error {
			for _, s := range here {
				if err := use(s, contenders(n)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// compareAll runs the scenes and reports them.
func (o options) compareAll(ctx context.Context, r report) error {
	run := slices.DeleteFunc(slices.Clone(scenes), func(s scene) bool { return s.rounds(o) == 0 || !o.wants(s.key) })
	var done []measured
	err := o.onNodes(ctx, run, func(s scene, all []*contender) error {
		results, err := o.compare(ctx, os.Stderr, s, all)
		done = append(done, measured{s, results})
		return err
	})
	if err != nil || len(done) == 0 {
		return err
	}
	var tables, held, brief, kinds bytes.Buffer
	for _, m := range done {
		table(&tables, m, o.roundTrip)
	}
	targets(&held, done)
	short(&brief, done)
	kindsTable(&kinds, done)
	fmt.Print(tables.String())
	if o.scenes == "" {
		fmt.Print(kinds.String() + held.String())
	}
	r.blocks["targets"], r.blocks["tables"], r.blocks["short"], r.blocks["kinds"] = held.Bytes(), tables.Bytes(), brief.Bytes(), kinds.Bytes()
	r.files["performance.svg"] = bars(done, o.roundTrip)
	return nil
}

// waterfalls are the scenes that are drawn, and under which name.
var waterfalls = map[string]string{"first": "waterfall", "again": "waterfall-again"}

// drawWaterfalls draws a pull by stock containerd and one by the plugin, of an image
// that is not there and of one that is.
func (o options) drawWaterfalls(ctx context.Context, r report) error {
	if !o.wants(waterfallKey) {
		return nil
	}
	run := slices.DeleteFunc(slices.Clone(scenes), func(s scene) bool { return waterfalls[s.key] == "" })
	return o.onNodes(ctx, run, func(s scene, all []*contender) error {
		s.contenders = two
		seen, err := o.traces(ctx, s, all)
		if err != nil {
			return err
		}
		text := list(seen)
		fmt.Print(text)
		r.blocks[waterfalls[s.key]] = []byte("```\n" + strings.TrimSpace(text) + "\n```\n")
		r.files[waterfalls[s.key]+".svg"] = waterfall(seen, o.roundTrip)
		return nil
	})
}

// listTraces prints one pull of each scene by each contender.
func (o options) listTraces(ctx context.Context, _ report) error {
	run := slices.DeleteFunc(slices.Clone(scenes), func(s scene) bool { return !o.wants(s.key) })
	return o.onNodes(ctx, run, func(s scene, all []*contender) error {
		seen, err := o.traces(ctx, s, all)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n\n%s", s.title, list(seen))
		return nil
	})
}

// measureCPU measures the daemons' CPU time, and reports it.
func (o options) measureCPU(ctx context.Context, r report) error {
	if !o.wants(cpuKey) {
		return nil
	}
	return o.withDaemons(ctx, false, "", func(n nodes) error {
		results, err := o.cpu(ctx, os.Stderr, n)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		cpuTable(&out, results)
		fmt.Print(out.String())
		r.blocks[cpuKey] = out.Bytes()
		return nil
	})
}

// measureScale measures how the plugin's pulls grow, and reports it.
func (o options) measureScale(ctx context.Context, r report) error {
	if !o.wants(scaleKey) {
		return nil
	}
	return o.withDaemons(ctx, false, scaleConfig, func(n nodes) error {
		s, err := o.scale(ctx, os.Stderr, n.plugin)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		scaleTable(&out, s)
		fmt.Print(out.String())
		r.blocks[scaleKey] = out.Bytes()
		r.files["scale.svg"] = plot(s.points)
		return nil
	})
}
