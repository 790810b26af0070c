package trust

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
)

// Store is all that the operator trusts, as it is now. It is safe for concurrent use.
type Store struct {
	mu      sync.Mutex
	trusts  []*trust // sorted by name
	current *Set
}

// trust is one of them.
type trust struct {
	name   string
	config Config
	loader Loader

	files       []seen
	verifier    Verifier
	fingerprint string
	broken      string // why the files as they are now are not used, "" where they are
}

// Set is whom the operator trusts at one moment. It does not change.
type Set struct {
	// Generation grows whenever a trust changes.
	Generation uint64
	verifiers  map[string]Verifier
	states     []State
}

// State says what became of a trust's files.
type State struct {
	Name string
	Kind Kind
	// Fingerprint is that of all that the trust's files hold, "sha256:…".
	Fingerprint string
	Facts       Facts
	// Broken says why newer files are not used, "" where there are none: what was read
	// before them still counts.
	Broken string
}

// Open reads all trusts. The error names the trust and what is wrong with which of its files,
// and is errdefs.ErrInvalidArgument. Without a loader for a trust it is
// errdefs.ErrFailedPrecondition: the daemon was built without verifiers.
func Open(configs map[string]Config, loaders ...Loader) (*Store, error) {
	byKind := map[Kind]Loader{}
	for _, l := range loaders {
		for _, k := range l.Kinds() {
			byKind[k] = l
		}
	}
	s := &Store{}
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		t := &trust{name: name, config: configs[name], loader: byKind[configs[name].Kind()]}
		if err := t.open(); err != nil {
			return nil, fmt.Errorf("trust.%s: %w", name, err)
		}
		s.trusts = append(s.trusts, t)
	}
	s.current = s.set(1)
	return s, nil
}

func (t *trust) open() error {
	if !namePattern.MatchString(t.name) {
		return invalid(fmt.Sprintf("the name %.80q has characters that messages could not show", t.name), "write letters, digits, dots, dashes and underscores")
	}
	if err := t.config.Check(); err != nil {
		return err
	}
	if t.loader == nil {
		return fmt.Errorf("this containerd was built without verifiers of %s: import the module verify, as the project's own build does: %w", t.config.Kind(), errdefs.ErrFailedPrecondition)
	}
	files, err := t.config.look()
	if err != nil {
		return err
	}
	return t.load(files)
}

// load makes a verifier of the files. One that fails changes nothing.
func (t *trust) load(list []seen) error {
	files, fingerprint, err := t.config.read(list)
	if err != nil {
		return err
	}
	if fingerprint == t.fingerprint {
		t.files = list
		return nil
	}
	v, err := t.loader.Load(t.config, files)
	if err != nil {
		return err
	}
	t.files, t.verifier, t.fingerprint = list, v, fingerprint
	return nil
}

// Now returns whom the operator trusts now. It looks at all files, and reads those again that
// have changed. Where that fails the last that could be read stays, with an error in the log.
func (s *Store) Now(ctx context.Context) *Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for _, t := range s.trusts {
		changed = t.refresh(ctx) || changed
	}
	if changed {
		s.current = s.set(s.current.Generation + 1)
	}
	return s.current
}

// refresh reports whether what is known of the trust has changed.
func (t *trust) refresh(ctx context.Context) bool {
	log := log.G(ctx).WithField("trust", t.name)
	list, err := t.config.look()
	if err == nil && t.broken == "" && slices.EqualFunc(list, t.files, seen.same) {
		return false
	}
	fingerprint, issued := t.fingerprint, t.verifier.Facts().Issued
	if err == nil {
		err = t.load(list)
	}
	if err != nil {
		was := t.broken
		if t.broken = err.Error(); was == t.broken {
			return false
		}
		log.WithError(err).Error("referrers: a trust's files cannot be used, and what was read before them still counts: mend them")
		return true
	}
	mended := t.broken != ""
	t.broken = ""
	if t.fingerprint == fingerprint {
		return mended
	}
	log = log.WithField("fingerprint", t.fingerprint)
	if now := t.verifier.Facts().Issued; now.Before(issued) {
		log.Warnf("referrers: a trust was replaced by an older one, of %s in place of %s: see who put it there", now.UTC().Format(time.RFC3339), issued.UTC().Format(time.RFC3339))
	} else {
		log.Info("referrers: a trust has changed")
	}
	return true
}

// set is for those who hold s.mu, or have s alone.
func (s *Store) set(generation uint64) *Set {
	set := &Set{Generation: generation, verifiers: map[string]Verifier{}}
	for _, t := range s.trusts {
		set.verifiers[t.name] = t.verifier
		set.states = append(set.states, State{Name: t.name, Kind: t.config.Kind(), Fingerprint: t.fingerprint, Facts: t.verifier.Facts(), Broken: t.broken})
	}
	return set
}

// States are those of all trusts, sorted by name.
func (s *Set) States() []State { return s.states }

// Expires is when the first trust ends, zero for never.
func (s *Set) Expires() time.Time {
	var first time.Time
	for _, t := range s.states {
		first = earliest(first, t.Facts.Expires)
	}
	return first
}

// Verify verifies evidence by the trust of the name, as [Verifier] does. Text of a verifier
// that panics is its error: evidence is bytes of a stranger, and the daemon is the node's.
func (s *Set) Verify(ctx context.Context, name string, e evidence.Evidence) (v evidence.Verified, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = evidence.Verified{}, fmt.Errorf("its verifier failed: %.200q: %w", fmt.Sprint(r), errdefs.ErrInvalidArgument)
		}
	}()
	verifier := s.verifiers[name]
	if verifier == nil {
		return evidence.Verified{}, fmt.Errorf("there is no trust %q: %w", name, errdefs.ErrNotFound)
	}
	return verifier.Verify(ctx, e)
}

// Check refuses rules that no trust could meet. The error names the rule's entry and says
// what to write; it is errdefs.ErrInvalidArgument.
func (s *Store) Check(p *policy.Policy) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.EachRequirement(func(_ string, r policy.Requirement) error { return s.check(r) })
}

func (s *Store) check(r policy.Requirement) error {
	names := map[string]bool{}
	most, unbounded, attests := 0, false, false
	for _, by := range r.By {
		i := slices.IndexFunc(s.trusts, func(t *trust) bool { return t.name == by })
		if i < 0 {
			return invalid(fmt.Sprintf("by names %q, which is no trust", by), s.remedy())
		}
		facts := s.trusts[i].verifier.Facts()
		attests = attests || s.trusts[i].config.Kind() != Notation
		unbounded = unbounded || facts.Identities == 0
		most += max(facts.Identities-len(facts.Names), 0)
		for _, name := range facts.Names {
			names[name] = true
		}
	}
	switch most += len(names); {
	case r.Kind == evidence.Attestation && !attests:
		return invalid(fmt.Sprintf("by names %s alone, and the Notary Project's signatures attest nothing", strings.Join(r.By, ", ")), "name a trust with keys or trusted_root")
	case r.SignedRepository && !attests:
		return invalid(fmt.Sprintf("signed_repository is true and by names %s alone, whose signatures name no repository", strings.Join(r.By, ", ")), "leave it out, or name a trust with keys or trusted_root")
	case !unbounded && r.AtLeast > most:
		return invalid(fmt.Sprintf("at_least = %d, and the trusts that by names have %d different identities in all", r.AtLeast, most), "write less, or name another trust")
	}
	return nil
}

func (s *Store) remedy() string {
	if len(s.trusts) == 0 {
		return "write a table trust.<name>"
	}
	var names []string
	for _, t := range s.trusts {
		names = append(names, t.name)
	}
	return "write one of " + strings.Join(names, ", ") + ", or a table trust.<name>"
}
