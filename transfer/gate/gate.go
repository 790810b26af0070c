// Package gate judges the image of a container that is about to be created, from what is
// stored, with the rules and trusts of now: images that were there before a rule, that were
// imported, tagged or pulled in another way, and those whose signature or key was withdrawn
// since their pull.
//
// The runtime names the image by its config's digest, which is what runs, and by one of its
// names. An image may have more names than that: [Gate.Judge] finds all that lead to the same
// config, and the rule of each of them must hold.
//
// What tells a Gate of containers is a plugin of the type [PluginType], which the module
// verify has.
package gate

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/judge"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

const (
	// MaxWait is how long the creation of a container waits for its verdict at most, and half of
	// the time that NRI has for a plugin, after which it drops it: two seconds by default.
	MaxWait = time.Second
	// maxWork is how long a verdict goes on to be made, so that the next try finds it.
	maxWork = 30 * time.Second
	// maxAtOnce is how many verdicts are made at a time.
	maxAtOnce = 4
)

// Mode is what becomes of a container whose image does not verify.
type Mode string

// The modes.
const (
	// Enforce refuses it where the rule has verify = "enforce" or deny.
	Enforce Mode = "enforce"
	// Warn lets it be created, with a line in the log.
	Warn Mode = "warn"
	// Off judges no container.
	Off Mode = "off"
)

// Modes are all of them.
var Modes = []Mode{Enforce, Warn, Off}

// Observer counts verdicts.
type Observer interface {
	// Creation is told of each verdict on a container that is about to be created. The
	// result is "" where none could be made.
	Creation(result verdict.Result, mode policy.Verify, took time.Duration)
	// GateConnected is told whether containers are judged.
	GateConnected(connected bool)
}

// Config is what a Gate works with.
type Config struct {
	Mode   Mode
	Policy *policy.Policy
	Judge  *judge.Judge
	Images images.Store
	Store  stored.Store
	// Observer counts; nil counts nothing.
	Observer Observer
}

// Gate judges images of containers. It is safe for concurrent use.
type Gate struct {
	config   Config
	rules    policy.Summary
	contents contents
	view     atomic.Pointer[view]
	changes  atomic.Uint64
	watched  atomic.Bool
	memory   memory
	slots    chan struct{}
}

// New returns a Gate.
func New(config Config) *Gate {
	return &Gate{config: config, rules: config.Policy.Summary(), slots: make(chan struct{}, maxAtOnce)}
}

// Image is how a runtime names a container's image.
type Image struct {
	// Name is one of its names, "" for none.
	Name string
	// Digest is that of its index or manifest, Config that of its config.
	Digest, Config digest.Digest
}

func (i Image) String() string {
	switch {
	case i.Name != "":
		return i.Name
	case i.Digest != "":
		return i.Digest.String()
	case i.Config != "":
		return i.Config.String()
	}
	return "without a name"
}

// Mode is what becomes of a container whose image does not verify.
func (g *Gate) Mode() Mode { return g.config.Mode }

// Judges reports whether a rule verifies or denies any image.
func (g *Gate) Judges() bool {
	return g.config.Mode != Off && g.rules.Enforcing+g.rules.Warning+g.rules.Denying > 0
}

// Refuses reports whether a container may be refused.
func (g *Gate) Refuses() bool {
	return g.config.Mode == Enforce && g.rules.Enforcing+g.rules.Denying > 0
}

// Connected is told whether containers are judged.
func (g *Gate) Connected(connected bool) {
	if g.config.Observer != nil {
		g.config.Observer.GateConnected(connected)
	}
}

// Prepare reads which images share their content, so that the first container does not wait
// for it. The context has the namespace.
func (g *Gate) Prepare(ctx context.Context) {
	if !g.Judges() {
		return
	}
	if _, err := g.look(ctx); err != nil {
		log.G(ctx).WithError(err).Debug("referrers: the images are not read ahead of the first container")
	}
}

// finding is what came of an image.
type finding struct {
	verdicts []named
	err      error
}

// Judge returns why no container of the image may be created, nil where it may. The error has
// no type, and its text begins with [verdict.Prefix]. The context has the namespace of the
// image.
func (g *Gate) Judge(ctx context.Context, image Image) error {
	if !g.Judges() {
		return nil
	}
	start := time.Now()
	if image == (Image{}) {
		return g.unjudged(ctx, image, errNameless, start)
	}
	wait := MaxWait
	if deadline, ok := ctx.Deadline(); ok { // NRI's, which a node may have made shorter
		wait = min(wait, time.Until(deadline)/2)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	found := make(chan finding, 1)
	select {
	case g.slots <- struct{}{}:
		go func() {
			defer func() { <-g.slots }()
			work, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxWork)
			defer cancel()
			verdicts, err := g.find(work, image)
			found <- finding{verdicts, err}
		}()
	case <-timer.C:
		return g.unjudged(ctx, image, errLate, start)
	}
	select {
	case f := <-found:
		if f.err != nil {
			return g.unjudged(ctx, image, f.err, start)
		}
		return g.decide(ctx, image, f.verdicts, start)
	case <-timer.C:
		return g.unjudged(ctx, image, errLate, start)
	}
}

// Why no verdict could be made.
var (
	errLate     = fmt.Errorf("its evidence could not be examined within %s: try again, and see to the load of the node where it stays", MaxWait)
	errNameless = errors.New("the runtime does not say which image the container is created from: containerd v2.4 or later does")
)

// find judges an image by the rule of each of its names.
func (g *Gate) find(ctx context.Context, image Image) (_ []named, err error) {
	defer func() {
		if r := recover(); r != nil { // a verdict is made of bytes of strangers, and the daemon is the node's
			err = fmt.Errorf("the gate failed: %.200q", fmt.Sprint(r))
		}
	}()
	records, err := g.names(ctx, image)
	if err != nil {
		return nil, err
	}
	q := question{image: image, records: records, generation: g.config.Judge.Generation(ctx)}
	if known, ok := g.memory.recall(ctx, g.config.Store, q); ok {
		return known, nil
	}
	verdicts, subjects, err := g.judgeAll(ctx, q)
	if err != nil {
		return nil, err
	}
	g.memory.keep(ctx, q, verdicts, subjects)
	return verdicts, nil
}

// decide says what the verdicts mean for the container: all must be in its favour.
func (g *Gate) decide(ctx context.Context, image Image, verdicts []named, start time.Time) error {
	var refused error
	for _, v := range verdicts {
		if v.Result == verdict.Unverified {
			continue
		}
		mode := v.Mode
		if g.config.Mode == Warn {
			mode = policy.VerifyWarn
		}
		g.count(v.Result, mode, start)
		if v.Result == verdict.Verified {
			continue
		}
		log := log.G(ctx).WithFields(log.Fields{"image": image.Name, "digest": image.Digest, "config": image.Config, "judged": v.Name, "rule": v.Rule, "reason": v.Reason})
		if mode == policy.VerifyWarn {
			log.Warn("referrers: the image of a container is not verified, and the mode warn lets it be created")
			continue
		}
		log.Warn("referrers: container refused")
		if refused == nil {
			refused = errors.New(text(image, v))
		}
	}
	return refused
}

// unjudged says what becomes of a container of whose image no verdict could be made.
func (g *Gate) unjudged(ctx context.Context, image Image, why error, start time.Time) error {
	mode := policy.VerifyWarn
	if g.Refuses() {
		mode = policy.VerifyEnforce
	}
	g.count("", mode, start)
	log := log.G(ctx).WithFields(log.Fields{"image": image.Name, "digest": image.Digest, "config": image.Config}).WithError(why)
	if mode == policy.VerifyWarn {
		log.Warn("referrers: the image of a container could not be judged, and no rule that enforces refuses it")
		return nil
	}
	log.Warn("referrers: container refused, since its image could not be judged")
	return errors.New(clip(fmt.Sprintf("%simage %s is refused: it could not be judged: %v", verdict.Prefix, clipName(image.String()), why)))
}

func (g *Gate) count(result verdict.Result, mode policy.Verify, start time.Time) {
	if g.config.Observer != nil {
		g.config.Observer.Creation(result, mode, time.Since(start))
	}
}
