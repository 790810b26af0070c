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

	"github.com/transfer-referrers/transfer-referrers/integration/bench/link"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// stage is a scene that is set up: a registry, and the link that leads to it.
type stage struct {
	scene
	roundTrip time.Duration
	reg       *registry.Registry
	img       *image // the one that is pulled
	other     *image // another one of the registry
	signing   *signingKey
	link      *link.Link
	dir       string // temporary
	ca        string
	host      string // hosts directory
}

func (s scene) setUp(ctx context.Context, roundTrip time.Duration, key *signingKey) (_ *stage, err error) {
	var opts []registry.Option
	if s.auth {
		opts = append(opts, registry.WithToken(user, password))
	}
	if s.http2 {
		opts = append(opts, registry.WithHTTP2())
	}
	st, err := open(roundTrip, opts...)
	if err != nil {
		return nil, err
	}
	st.scene, st.signing = s, key
	if st.img, err = st.push(ctx, "app", 0); err == nil && s.before == other {
		st.other, err = st.push(ctx, "other", 500)
	}
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	return st, nil
}

// open starts a registry.
func open(roundTrip time.Duration, opts ...registry.Option) (*stage, error) {
	reg, err := registry.Start(registry.Olareg, append(opts, registry.WithTLS())...)
	if err != nil {
		return nil, err
	}
	st := &stage{reg: reg, roundTrip: roundTrip}
	if st.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, errors.Join(err, reg.Close())
	}
	st.host, st.ca = filepath.Join(st.dir, "hosts"), filepath.Join(st.dir, "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: reg.Certificate()})
	if err := os.WriteFile(st.ca, certificate, 0o644); err != nil {
		return nil, errors.Join(err, st.close())
	}
	return st, nil
}

// connect opens a new link, and writes the hosts directory that trusts the registry
// at its end. The link's port makes it a registry that no daemon has heard of, whatever
// daemons remember of those that they know. Its hosts.toml names it as its own server,
// so that it is no mirror, and the server with its scheme, so that containerd does not
// treat it as one on localhost: it verifies its certificate and never tries HTTP.
func (st *stage) connect() (err error) {
	if st.link, err = link.Open(st.reg.Host, st.roundTrip); err != nil {
		return err
	}
	st.reg.Reset()
	here := filepath.Join(st.host, strings.ReplaceAll(st.link.Host, ":", "_")+"_")
	toml := fmt.Appendf(nil, "server = %q\nca = %q\n", "https://"+st.link.Host, st.ca)
	err = os.MkdirAll(here, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(here, "hosts.toml"), toml, 0o644)
	}
	if err != nil {
		return errors.Join(err, st.disconnect())
	}
	return nil
}

func (st *stage) disconnect() error { return errors.Join(st.link.Close(), os.RemoveAll(st.host)) }

// of is the stage with another image in its centre.
func (st *stage) of(img *image) *stage {
	out := *st
	out.img = img
	return &out
}

// ref is the image's name, at its manifest's.
func (st *stage) ref() string { return st.link.Host + "/" + st.img.repository + ":v1" }

func (st *stage) at(dgst string) string { return st.link.Host + "/" + st.img.repository + "@" + dgst }

// push puts the scene's image into a repository, with its referrers.
func (st *stage) push(ctx context.Context, repository string, seed uint64) (*image, error) {
	img, err := pushImage(ctx, st.reg, repository, seed, st.layers, st.layerSize)
	if err != nil {
		return nil, err
	}
	for n := range st.onIndex + st.onManifest {
		if n == 0 && st.signed {
			if err := img.sign(ctx, st.reg, st.signing, img.index); err != nil {
				return nil, err
			}
			continue
		}
		subject := img.index
		if n >= st.onIndex {
			subject = img.manifest
		}
		types := []string{signature, attestation}
		if st.nested {
			types = []string{attestation, attestation} // nobody signs a signature
		}
		blob := 1000*seed + uint64(2*n)
		desc, err := img.attach(ctx, st.reg, subject, types[n%2], random(1000+blob, 4<<10))
		if err != nil {
			return nil, err
		}
		if !st.nested {
			continue
		}
		if _, err := img.attach(ctx, st.reg, desc, signature, random(1001+blob, 4<<10)); err != nil {
			return nil, err
		}
	}
	return img, nil
}

func (st *stage) close() error { return errors.Join(st.reg.Close(), os.RemoveAll(st.dir)) }
