package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// scene is one case of the benchmark: an image in a registry.
type scene struct {
	key, title string
	auth       bool
	// again pulls an image that is there already.
	again bool
	// disk has the daemons live in the default place for temporary files.
	disk bool
	// layers of layerSize bytes, onIndex referrers of its index and
	// onManifest of its manifest, of 4 KiB each.
	layers, layerSize   int
	onIndex, onManifest int
	// rounds are those of the full and of the short form; 0 leaves it out.
	full, short int
	// targets are what the ratio to a contender may be at most.
	targets map[string]float64
}

const (
	mebibyte = 1 << 20
	delay    = 20 * time.Millisecond
	user     = "user"
	password = "secret"
)

// scenes are all cases, in the order of the report.
var scenes = []scene{
	{key: "small-auth", title: "Small image, token auth", auth: true, layers: 1, layerSize: mebibyte, onIndex: 1, onManifest: 1,
		full: 15, short: 3, targets: map[string]float64{stockKey: 0.88, setReferrersKey: 0.75, orasKey: 0.50}},
	{key: "small-anonymous", title: "Small image, no auth", layers: 1, layerSize: mebibyte, onIndex: 1, onManifest: 1,
		full: 15, short: 3, targets: map[string]float64{stockKey: 1.00, setReferrersKey: 0.75, orasKey: 0.50}},
	{key: "large", title: "Large image (3 layers of 100 MiB), 10 referrers, token auth", auth: true, layers: 3, layerSize: 100 * mebibyte, onIndex: 5, onManifest: 5,
		full: 5, targets: map[string]float64{stockKey: 1.02, setReferrersKey: 0.75}},
	{key: "none", title: "Small image without referrers, token auth", auth: true, layers: 1, layerSize: mebibyte,
		full: 15, short: 3, targets: map[string]float64{stockKey: 0.88}},
	{key: "again", title: "Pull again of an unchanged image, token auth", auth: true, again: true, layers: 1, layerSize: mebibyte, onIndex: 1, onManifest: 1,
		full: 15, short: 3, targets: map[string]float64{stockKey: 1.00}},
	{key: "again-anonymous", title: "Pull again of an unchanged image, no auth", again: true, layers: 1, layerSize: mebibyte, onIndex: 1, onManifest: 1,
		full: 15, short: 3, targets: map[string]float64{stockKey: 1.00}},
	{key: "disk", title: "Small image, token auth, content on disk", disk: true, auth: true, layers: 1, layerSize: mebibyte, onIndex: 1, onManifest: 1,
		full: 15},
}

func (s scene) rounds(short bool) int {
	if short {
		return s.short
	}
	return s.full
}

// stage is a scene that is set up.
type stage struct {
	scene
	reg  *registry.Registry
	img  *image
	dir  string // temporary
	ca   string
	host string // hosts directory
}

func (s scene) setUp(ctx context.Context) (*stage, error) {
	opts := []registry.Option{registry.WithTLS(), registry.WithDelay(delay)}
	if s.auth {
		opts = append(opts, registry.WithToken(user, password))
	}
	st, err := open(opts...)
	if err != nil {
		return nil, err
	}
	st.scene = s
	if st.img, err = pushImage(ctx, st.reg, "app", s.layers, s.layerSize); err == nil {
		err = st.attach(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	return st, nil
}

// open starts a registry and writes the hosts directory that trusts it.
func open(opts ...registry.Option) (*stage, error) {
	reg, err := registry.Start(registry.Olareg, opts...)
	if err != nil {
		return nil, err
	}
	st := &stage{reg: reg}
	if st.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, errors.Join(err, reg.Close())
	}
	st.host = filepath.Join(st.dir, "hosts")
	here := filepath.Join(st.host, strings.ReplaceAll(reg.Host, ":", "_")+"_")
	st.ca = filepath.Join(st.dir, "ca.pem")
	err = errors.Join(
		os.MkdirAll(here, 0o755),
		os.WriteFile(st.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: reg.Certificate()}), 0o644),
		os.WriteFile(filepath.Join(here, "hosts.toml"), fmt.Appendf(nil, "server = %q\nca = %q\n", reg.URL(), st.ca), 0o644))
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	return st, nil
}

func (st *stage) attach(ctx context.Context) error {
	for n := range st.onIndex + st.onManifest {
		subject, artifactType := st.img.index, signature
		if n >= st.onIndex {
			subject, artifactType = st.img.manifest, attestation
		}
		if err := st.img.attach(ctx, st.reg, "app", subject, artifactType, random(uint64(1000+n), 4<<10)); err != nil {
			return err
		}
	}
	return nil
}

func (st *stage) close() error { return errors.Join(st.reg.Close(), os.RemoveAll(st.dir)) }
