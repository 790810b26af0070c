package main

// scene is one case of the benchmark: an image in a registry, and what the daemon did
// before it pulls that.
type scene struct {
	key, title string
	auth       bool // with tokens
	http2      bool // offered by the registry
	before
	// disk has the daemons live in the default place for temporary files.
	disk bool
	// layers of layerSize bytes, onIndex referrers of its index and
	// onManifest of its manifest, of 4 KiB each; nested has one more on each.
	layers, layerSize   int
	onIndex, onManifest int
	nested              bool
	// signed has the first referrer be a signature by the benchmark's key. The targets are
	// then those of the daemon that enforces.
	signed     bool
	contenders []string // by key
	// rounds are those of the full and of the short form; 0 leaves it out.
	full, short int
	// targets are what the ratio to a contender may be at most.
	targets map[string]float64
}

// before is what the daemon did before the pull that is measured.
type before int

const (
	nothing   before = iota // it has never heard of the registry
	other                   // it pulled another image from it
	same                    // it pulled the image
	restarted               // the same, and was killed and started again
)

const (
	mebibyte = 1 << 20
	user     = "user"
	password = "secret"
)

// Those who take part.
var (
	everyone = []string{stockKey, pluginKey, clientKey, setReferrersKey, orasKey, regctlKey}
	two      = []string{stockKey, pluginKey}
	three    = []string{stockKey, idleKey, pluginKey}
)

// scenes are all cases, in the order of the report.
var scenes = append(append(smallScenes(), signedScenes()...), []scene{
	{key: "none", title: "First pull of a small image without referrers, token auth", auth: true, layers: 1, layerSize: mebibyte,
		contenders: everyone, full: 9, short: 2, targets: map[string]float64{stockKey: 0.88}},
	{key: "large", title: "First pull of a large image (3 layers of 100 MiB), 10 referrers, token auth", auth: true,
		layers: 3, layerSize: 100 * mebibyte, onIndex: 5, onManifest: 5,
		contenders: everyone, full: 9, targets: map[string]float64{stockKey: 1.00, setReferrersKey: 0.75}},
	{key: "large-h2", title: "First pull of a large image, 10 referrers, token auth, HTTP/2", auth: true, http2: true,
		layers: 3, layerSize: 100 * mebibyte, onIndex: 5, onManifest: 5, contenders: two, full: 9, targets: map[string]float64{stockKey: 1.00}},
	{key: "again-100", title: "Pulled again, 100 referrers with a referrer each, token auth", auth: true, before: same,
		layers: 1, layerSize: mebibyte, onIndex: 100, nested: true, contenders: three, full: 5, short: 1},
	{key: "again-100-h2", title: "Pulled again, 100 referrers with a referrer each, token auth, HTTP/2", auth: true, http2: true, before: same,
		layers: 1, layerSize: mebibyte, onIndex: 100, nested: true, contenders: three, full: 5},
	{key: "disk", title: "First pull of a small image, token auth, content on disk", disk: true, auth: true,
		layers: 1, layerSize: mebibyte, onIndex: 1, onManifest: 1, contenders: []string{stockKey, pluginKey, setReferrersKey}, full: 9},
}...)

// kinds are those of registries, and how keys and titles call them.
var kinds = []struct {
	key, title  string
	auth, http2 bool
}{
	{"", "token auth", true, false},
	{"-anonymous", "no auth", false, false},
	{"-h2", "token auth, HTTP/2", true, true},
	{"-anonymous-h2", "no auth, HTTP/2", false, true},
}

// smalls are what is done with a small image at each kind of registry.
var smalls = []struct {
	key, title string
	before     before
}{
	{"first", "First pull of a small image", nothing},
	{"known", "Another image of a known registry", other},
	{"again", "Pulled again, unchanged", same},
	{"restarted", "Pulled again after the daemon was restarted", restarted},
}

// smallTargets are by key.
var smallTargets = map[string]map[string]float64{
	"first":              {stockKey: 0.72, setReferrersKey: 0.75, orasKey: 0.50},
	"first-anonymous":    {stockKey: 0.85, setReferrersKey: 0.75, orasKey: 0.50},
	"first-h2":           {stockKey: 0.65},
	"first-anonymous-h2": {stockKey: 0.75},
	"known":              {stockKey: 0.50},
	"known-anonymous":    {stockKey: 0.65},
	"known-h2":           {stockKey: 0.50},
	"known-anonymous-h2": {stockKey: 0.65},
	"again":              {stockKey: 0.45},
	"again-anonymous":    {stockKey: 0.65},
	"again-h2":           {stockKey: 0.45},
	"again-anonymous-h2": {stockKey: 0.65},
}

// smallScenes are a small image's at each kind of registry. All contenders are at
// those of HTTP/1.1, which is what containerd's own clients speak to any registry.
func smallScenes() []scene {
	var out []scene
	for _, small := range smalls {
		for _, kind := range kinds {
			s := scene{
				key: small.key + kind.key, title: small.title + ", " + kind.title,
				auth: kind.auth, http2: kind.http2, before: small.before,
				layers: 1, layerSize: mebibyte, onIndex: 1, onManifest: 1,
				contenders: two, full: 9, short: 3, targets: smallTargets[small.key+kind.key],
			}
			if s.column() != "" {
				s.contenders = everyone
			}
			out = append(out, s)
		}
	}
	return out
}

// signedTargets are by key of the kind of registry.
var signedTargets = map[string]float64{"": 0.80, "-anonymous": 0.95, "-h2": 0.80, "-anonymous-h2": 0.95}

// signedScenes are a small image's first pull by a daemon that lets no layer be fetched before
// the image is verified.
func signedScenes() []scene {
	var out []scene
	for _, kind := range kinds {
		out = append(out, scene{
			key: "signed" + kind.key, title: "First pull of a signed image, " + kind.title, auth: kind.auth, http2: kind.http2,
			layers: 1, layerSize: mebibyte, onIndex: 1, onManifest: 1, signed: true,
			contenders: []string{stockKey, pluginKey, enforcingKey}, full: 9, short: 2,
			targets: map[string]float64{stockKey: signedTargets[kind.key]},
		})
	}
	return out
}

// measuredKey is the contender that the scene's targets are about.
func (s scene) measuredKey() string {
	if s.signed {
		return enforcingKey
	}
	return pluginKey
}

// column is how the README's table calls the scene; empty leaves it out.
func (s scene) column() string {
	return map[string]string{
		"first": "first pull", "first-anonymous": "no auth", "large": "large", "none": "no referrers",
		"known": "known registry", "again": "pulled again",
	}[s.key]
}

func (s scene) rounds(o options) int {
	switch {
	case o.rounds > 0:
		return o.rounds
	case o.short:
		return s.short
	}
	return s.full
}
