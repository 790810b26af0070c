package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// table prints the results of a scene in markdown.
func table(w io.Writer, m measured, roundTrip time.Duration) {
	fmt.Fprintf(w, "### %s\n\n", m.title)
	fmt.Fprintln(w, "| contender | over stock | time | in round trips | spread | requests | connections opened | received | daemon's peak memory |")
	fmt.Fprintln(w, "| --- | --: | --: | --: | --: | --: | --: | --: | --: |")
	for _, r := range m.results {
		fmt.Fprintf(w, "| %s | %s | %s | %s | ±%.0f %% | %s | %s | %s | %s |\n", r.name,
			decimal(ratio(m.results, r.key, stockKey)), r.time().Round(time.Millisecond), trips(r.time(), roundTrip), 100*r.spread(),
			r.requests(), counted(r.samples, func(s sample) int { return s.connections }),
			size(median(r.samples, func(s sample) int64 { return s.bytes })),
			size(median(r.samples, func(s sample) int64 { return s.peak })))
	}
	fmt.Fprintln(w)
}

// decimal prints a ratio, and none as a dash.
func decimal(ratio float64) string {
	if math.IsNaN(ratio) {
		return "–"
	}
	return fmt.Sprintf("%.2f", ratio)
}

func trips(d, roundTrip time.Duration) string {
	if roundTrip == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f", float64(d)/float64(roundTrip))
}

// counted prints a number of each pull: the least and the most, where they differ.
func counted(samples []sample, of func(sample) int) string {
	values := sorted(samples, of)
	least, most := values[0], values[len(values)-1]
	if least == most {
		return strconv.Itoa(least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

// requests prints their number, and how many of them were made over HTTP/2.
func (r result) requests() string {
	out := counted(r.samples, func(s sample) int { return s.requests })
	if http2 := counted(r.samples, func(s sample) int { return s.http2 }); http2 != "0" {
		out += ", HTTP/2: " + http2
	}
	return out
}

// measured is a scene with its results.
type measured struct {
	scene
	results []result
}

// targetNames are how the table of targets calls those that the plugin is held
// against.
var targetNames = []struct{ key, name string }{
	{stockKey, "stock without referrers"},
	{setReferrersKey, "`images.SetReferrers`"},
	{orasKey, "stock, then oras"},
}

// targets prints the plugin's ratios beside what they may be at most.
func targets(w io.Writer, all []measured) {
	fmt.Fprintln(w, "| case | this plugin over | ratio | at most | met |")
	fmt.Fprintln(w, "| --- | --- | --: | --: | --- |")
	for _, m := range all {
		for _, t := range targetNames {
			most, ok := m.targets[t.key]
			if !ok || math.IsNaN(ratio(m.results, m.measuredKey(), t.key)) {
				continue
			}
			r, met := ratio(m.results, m.measuredKey(), t.key), "yes"
			if r > most+0.005 { // as it is printed
				met = "no"
			}
			fmt.Fprintf(w, "| %s | %s | %.2f | %.2f | %s |\n", m.title, t.name, r, most, met)
		}
	}
	fmt.Fprintln(w)
}

// short prints the ratios to stock alone, a scene a column.
func short(w io.Writer, all []measured) {
	shown := slices.DeleteFunc(slices.Clone(all), func(m measured) bool { return m.column() == "" })
	if len(shown) == 0 {
		return
	}
	fmt.Fprintf(w, "| time over stock without referrers |")
	for _, m := range shown {
		fmt.Fprintf(w, " %s |", m.column())
	}
	fmt.Fprintf(w, "\n| --- |%s\n", strings.Repeat(" --: |", len(shown)))
	for _, r := range shown[0].results {
		fmt.Fprintf(w, "| %s |", r.name)
		for _, m := range shown {
			fmt.Fprintf(w, " %s |", decimal(ratio(m.results, r.key, stockKey)))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// kindsTable prints the plugin's time over stock's for a small image at each kind of
// registry, with both times.
func kindsTable(w io.Writer, all []measured) {
	fmt.Fprintf(w, "| this plugin over stock without referrers |")
	for _, kind := range kinds {
		fmt.Fprintf(w, " %s |", kind.title)
	}
	fmt.Fprintf(w, "\n| --- |%s\n", strings.Repeat(" --: |", len(kinds)))
	for _, small := range smalls {
		fmt.Fprintf(w, "| %s |", small.title)
		for _, kind := range kinds {
			fmt.Fprintf(w, " %s |", pair(all, small.key+kind.key))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// pair prints a scene's ratio, and the times that it is of.
func pair(all []measured, key string) string {
	at := slices.IndexFunc(all, func(m measured) bool { return m.key == key })
	if at < 0 {
		return "–"
	}
	results := all[at].results
	r := ratio(results, pluginKey, stockKey)
	if math.IsNaN(r) {
		return "–"
	}
	return fmt.Sprintf("%.2f (%d of %d ms)", r,
		find(results, pluginKey).time().Milliseconds(), find(results, stockKey).time().Milliseconds())
}

func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}
