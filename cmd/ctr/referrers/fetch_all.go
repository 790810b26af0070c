package referrers

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/outcome"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

const (
	// maxAtOnce is the most images that can be fetched at a time.
	maxAtOnce = 16
	// defaultAtOnce asks a registry for little at a time: nobody waits for it.
	defaultAtOnce = 2
	// defaultJitter spreads the requests of nodes that begin at the same time.
	defaultJitter = 500 * time.Millisecond
)

// fetchAllFlags are those that only --all has.
var fetchAllFlags = []cli.Flag{
	&cli.BoolFlag{Name: "all", Usage: "Fetch the referrers of every image of the namespace"},
	&cli.DurationFlag{HideDefault: true, Name: "older-than", Usage: "With --all: leave out images that were asked about since (24h; default: none)"},
	&cli.DurationFlag{Name: "jitter", Value: defaultJitter, Usage: "With --all: wait up to that long, at random, before each image"},
	&cli.IntFlag{Name: "max-concurrent", Value: defaultAtOnce, Usage: fmt.Sprintf("With --all: images to ask about at a time, %d at most", maxAtOnce)},
}

// fetchedImage is what became of one image. Its JSON is what `ctr referrers fetch --all --format
// json` prints of each.
type fetchedImage struct {
	Image  string        `json:"image"`
	Digest digest.Digest `json:"digest"`
	// Status is the one that says least of the subjects that were asked about; empty where none was.
	Status labels.Status `json:"status,omitempty"`
	// Fresh says that the image was asked about since, and left out.
	Fresh bool `json:"fresh,omitempty"`
	// Unselected says that no rule selects referrers of it, so that no registry was asked.
	Unselected bool `json:"unselected,omitempty"`
	// Added and Withdrawn are referrers that the store did not have before, and that the
	// registry lists no longer.
	Added     []digest.Digest `json:"added"`
	Withdrawn []digest.Digest `json:"withdrawn"`
	Result    verdict.Result  `json:"result,omitempty"`
	Refused   string          `json:"refused,omitempty"`
	Error     string          `json:"error,omitempty"`
	gone      bool            // removed since the images were listed
}

// allFetcher fetches the referrers of many images.
type allFetcher struct {
	cmd    *cli.Command
	client *containerd.Client
	opts   []explain.FetchOpt
	queue  fetchQueue
}

// fetchAll asks about every image of the namespace that was not asked about lately. One that fails
// does not keep the others from being fetched.
func fetchAll(ctx context.Context, cmd *cli.Command, opts []explain.FetchOpt) error {
	atOnce, jitter := cmd.Int("max-concurrent"), cmd.Duration("jitter")
	switch {
	case cmd.NArg() > 0:
		return usagef("--all fetches for every image; leave out %q", cmd.Args().First())
	case cmd.IsSet("user") || cmd.IsSet("refresh"):
		return usagef("--user and --refresh would be sent to every registry; put credentials into a hosts directory and name it with --hosts-dir")
	case atOnce < 1 || atOnce > maxAtOnce:
		return usagef("--max-concurrent %d is out of range; write 1 to %d", atOnce, maxAtOnce)
	case jitter < 0 || cmd.Duration("older-than") < 0:
		return usagef("--jitter and --older-than are times of 0 or more")
	}
	client, ctx, cancel, err := commands.NewClient(ctx, cmd)
	if err != nil {
		return err
	}
	defer cancel()
	if why := whyInactive(ctx, client); why != "" {
		return fmt.Errorf("nothing can be fetched: %s", why)
	}
	list, err := client.ImageService().List(ctx)
	if err != nil {
		return err
	}
	f := &allFetcher{cmd: cmd, client: client, opts: opts}
	all := f.prepare(ctx, list, time.Now())
	group, working := errgroup.WithContext(ctx)
	for range atOnce {
		group.Go(func() error { return f.work(working, jitter) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(r *fetchedImage) bool { return r.gone })
	if err := printFetched(cmd, all); err != nil {
		return err
	}
	return allFetched(all)
}

// prepare makes a job of each image, in an order of chance: nodes that begin together ask for
// different images. An image with several names in one repository is asked about once.
func (f *allFetcher) prepare(ctx context.Context, list []images.Image, now time.Time) []*fetchedImage {
	all, seen := []*fetchedImage{}, map[string]bool{}
	for _, used := range surveyOf(list, nil).images {
		r := &fetchedImage{Image: used.Name, Digest: used.Target.Digest, Added: []digest.Digest{}, Withdrawn: []digest.Digest{}}
		ref, err := atDigest(used.Image)
		if err != nil {
			r.Error = err.Error()
			all = append(all, r)
			continue
		}
		spec, _ := reference.Parse(ref) // which atDigest has done
		if key := spec.Locator + "@" + string(r.Digest); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		all = append(all, r)
		if age := f.cmd.Duration("older-than"); age > 0 {
			if read, err := stored.Read(ctx, f.client.ContentStore(), used.Image); err == nil && now.Sub(read.Checked) < age {
				r.Status, r.Fresh = read.Status, true
				continue
			}
		}
		f.queue.jobs = append(f.queue.jobs, &fetchJob{registry: spec.Hostname(), ref: ref, result: r})
	}
	rand.Shuffle(len(f.queue.jobs), func(i, j int) { f.queue.jobs[i], f.queue.jobs[j] = f.queue.jobs[j], f.queue.jobs[i] })
	return all
}

// work fetches until no image is left. The error is that of the context.
func (f *allFetcher) work(ctx context.Context, jitter time.Duration) error {
	for {
		job, wait := f.queue.next(time.Now())
		if job == nil && wait == 0 {
			return nil
		}
		if job != nil && jitter > 0 {
			wait = rand.N(jitter)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		if job == nil {
			continue
		}
		pause, err := f.fetch(ctx, job)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if pause > 0 && f.queue.pause(job, pause, time.Now()) {
			continue
		}
		if err != nil {
			job.result.Error, job.result.gone = err.Error(), wasRemoved(ctx, f.client, job.result.Image)
		}
	}
}

// fetch has the daemon fetch for one image. It returns how long the registry wants to be left
// alone, where it gave no answer.
func (f *allFetcher) fetch(ctx context.Context, job *fetchJob) (time.Duration, error) {
	src, err := selectingSource(ctx, f.cmd, job.ref)
	if err != nil {
		return 0, err
	}
	image, err := f.client.ImageService().Get(ctx, job.result.Image)
	if err != nil {
		return 0, err
	}
	before, err := stored.Read(ctx, f.client.ContentStore(), image)
	if err != nil {
		return 0, err
	}
	dst := explain.NewFetch(f.opts...)
	if err := f.client.Transfer(ctx, src, dst); err != nil {
		return 0, err
	}
	e, err := dst.Explanation(ctx)
	if err != nil {
		return 0, err
	}
	after, err := stored.Read(ctx, f.client.ContentStore(), image)
	if err != nil {
		return 0, err
	}
	job.result.tell(e, before, after)
	if job.result.Status.Incomplete() {
		pause, _ := time.ParseDuration(e.RetryAfter) // "" is none
		return pause, nil
	}
	return 0, nil
}

// tell says what the fetch found, and what it changed. A second try adds to the first.
func (r *fetchedImage) tell(e *explain.Explanation, before, after *stored.Image) {
	o := outcome.Outcome{Subjects: e.Subjects, Unasked: e.Unasked}
	r.Status, r.Refused, r.Unselected = o.Status(), e.Refused, len(e.Subjects) == 0
	if e.Verdict != nil {
		r.Result = e.Verdict.Result
	}
	listed := map[digest.Digest]bool{}
	for _, old := range flat(before.Referrers) {
		listed[old.Digest] = old.Unlisted.IsZero()
	}
	for _, now := range flat(after.Referrers) {
		was, known := listed[now.Digest]
		switch is := now.Unlisted.IsZero(); {
		case is && (!known || !was):
			r.Added = append(r.Added, now.Digest)
		case !is && known && was:
			r.Withdrawn = append(r.Withdrawn, now.Digest)
		}
	}
}

func sleep(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func printFetched(cmd *cli.Command, all []*fetchedImage) error {
	w := cmd.Root().Writer
	switch {
	case cmd.Bool("quiet"):
		return nil
	case cmd.String("format") == "json":
		return printJSON(w, all)
	}
	return printFetchedTable(w, all)
}

// printFetchedTable prints a line an image, and what is wrong with each.
func printFetchedTable(w io.Writer, all []*fetchedImage) error {
	t := newTable(w, "NAME", "DIGEST", "STATUS", "NEW", "WITHDRAWN", "VERDICT")
	for _, r := range all {
		result := string(r.Result)
		if result == "" {
			result = "-"
		}
		t.row(r.Image, r.Digest, r.state(), len(r.Added), len(r.Withdrawn), result)
	}
	if err := t.flush(); err != nil {
		return err
	}
	out := &lines{w: w}
	for _, r := range all {
		switch {
		case r.Error != "":
			out.line("error   ", fmt.Sprintf("image %s: %s", r.Image, r.Error))
		case r.Refused != "":
			out.line("refused ", r.Refused)
		}
	}
	return out.err
}

// state is the word for what became of the image.
func (r *fetchedImage) state() string {
	switch {
	case r.Error != "":
		return "error"
	case r.Fresh:
		return string(r.Status) + " (not asked again)"
	case r.Unselected:
		return unselected
	}
	return string(r.Status)
}

// allFetched is the error, with the highest exit code that applies to any image.
func allFetched(all []*fetchedImage) error {
	var refused, unknown, failed int
	for _, r := range all {
		switch {
		case r.Error != "":
			failed++
		case r.Fresh:
		case r.Refused != "":
			refused++
		case r.Status.Incomplete():
			unknown++
		}
	}
	var parts []string
	code := 0
	for _, c := range []struct {
		n, code int
		text    string
	}{
		{failed, exitError, "%d could not be fetched for"},
		{unknown, exitUnknown, "of %d it is not known in full what refers to them"},
		{refused, exitRefused, "%d do not meet their rule"},
	} {
		if c.n > 0 {
			code = c.code
			parts = append(parts, fmt.Sprintf(c.text, c.n))
		}
	}
	if code == 0 {
		return nil
	}
	return exitf(code, "of %d images: %s", len(all), strings.Join(parts, "; "))
}
