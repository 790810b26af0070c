package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// table prints the results of a scene in markdown.
func table(w io.Writer, s scene, results []result) {
	fmt.Fprintf(w, "### %s\n\n", s.title)
	fmt.Fprintln(w, "| contender | over stock | time | spread | requests | connections | received | daemon's peak memory |")
	fmt.Fprintln(w, "| --- | --: | --: | --: | --: | --: | --: | --: |")
	stock := find(results, stockKey).time()
	for _, r := range results {
		fmt.Fprintf(w, "| %s | %.2f | %s | ±%.0f %% | %d | %d | %s | %s |\n", r.name,
			float64(r.time())/float64(stock), r.time().Round(time.Millisecond), 100*r.spread(),
			median(r.samples, func(s sample) int { return s.requests }),
			median(r.samples, func(s sample) int { return s.connections }),
			size(median(r.samples, func(s sample) int64 { return s.bytes })),
			size(median(r.samples, func(s sample) int64 { return s.peak })))
	}
	fmt.Fprintln(w)
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
			if !ok {
				continue
			}
			r, met := ratio(m.results, t.key), "yes"
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
	fmt.Fprintf(w, "\n| --- |")
	for range shown {
		fmt.Fprintf(w, " --: |")
	}
	fmt.Fprintln(w)
	for i, r := range shown[0].results {
		fmt.Fprintf(w, "| %s |", r.name)
		for _, m := range shown {
			fmt.Fprintf(w, " %.2f |", float64(m.results[i].time())/float64(find(m.results, stockKey).time()))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

func (s scene) column() string {
	return map[string]string{
		"small-auth": "small", "small-anonymous": "small, no auth", "large": "large", "none": "no referrers", "again": "pulled again",
	}[s.key]
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
