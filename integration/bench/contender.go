package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	imagestore "github.com/containerd/containerd/v2/core/transfer/image"
	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
)

// The contenders, by key.
const (
	stockKey        = "stock"
	clientKey       = "client"
	setReferrersKey = "set-referrers"
	orasKey         = "oras"
	regctlKey       = "regctl"
	pluginKey       = "plugin"
	idleKey         = "idle"
	enforcingKey    = "enforcing"
)

// contender is one way to bring an image, with or without its referrers.
type contender struct {
	key, name string
	daemon    *daemon.Daemon
	// referrers says that it brings them, files that they end up as files
	// rather than in the content store.
	referrers, files bool
	pull             func(ctx context.Context, d *daemon.Daemon, st *stage) error
}

// contenders are all of them.
func contenders(n nodes) []*contender {
	return []*contender{
		{stockKey, "stock containerd, no referrers", n.stock, false, false, transferPull},
		{idleKey, "this plugin, no rule matches", n.idle, false, false, transferPull},
		{pluginKey, "**this plugin**", n.plugin, true, false, transferPull},
		{enforcingKey, "**this plugin, `verify = \"enforce\"`**", n.enforcing, true, false, transferPull},
		{clientKey, "containerd's client, no referrers", n.stock, false, false, clientPull(false)},
		{setReferrersKey, "containerd's client, `images.SetReferrers`", n.stock, true, false, clientPull(true)},
		{orasKey, "stock, then `oras discover`, `oras pull`", n.stock, true, true, then(oras)},
		{regctlKey, "stock, then `regctl artifact list`, `artifact get`", n.stock, true, true, then(regctl)},
	}
}

// transferPull pulls through the transfer service, as ctr does.
func transferPull(ctx context.Context, d *daemon.Daemon, st *stage) error {
	opts := []ociregistry.Opt{ociregistry.WithHostDir(st.host)}
	if st.auth {
		opts = append(opts, ociregistry.WithCredentials(credentials{}))
	}
	src, err := ociregistry.NewOCIRegistry(ctx, st.ref(), opts...)
	if err != nil {
		return err
	}
	here := platforms.DefaultSpec()
	return d.Client.Transfer(ctx, src, imagestore.NewStore(st.ref(), imagestore.WithPlatforms(here), imagestore.WithUnpack(here, "")))
}

type credentials struct{}

func (credentials) GetCredentials(_ context.Context, _, host string) (ociregistry.Credentials, error) {
	return ociregistry.Credentials{Host: host, Username: user, Secret: password}, nil
}

// then pulls with stock containerd and brings the referrers of the image's index
// and of its manifest by a tool.
func then(tool func(context.Context, *stage, ocispec.Descriptor) error) func(context.Context, *daemon.Daemon, *stage) error {
	return func(ctx context.Context, d *daemon.Daemon, st *stage) error {
		if err := transferPull(ctx, d, st); err != nil {
			return err
		}
		for _, subject := range []ocispec.Descriptor{st.img.index, st.img.manifest} {
			if err := tool(ctx, st, subject); err != nil {
				return err
			}
		}
		return nil
	}
}

func oras(ctx context.Context, st *stage, subject ocispec.Descriptor) error {
	flags := []string{"--ca-file", st.ca}
	if st.auth {
		flags = append(flags, "-u", user, "-p", password)
	}
	out, err := run(ctx, st, "oras", append([]string{"discover", "--format", "json", st.at(subject.Digest.String())}, flags...)...)
	if err != nil {
		return err
	}
	var found struct {
		Referrers []struct {
			Digest string `json:"digest"`
		} `json:"referrers"`
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return err
	}
	for _, r := range found.Referrers {
		if _, err := run(ctx, st, "oras", append([]string{"pull", "-o", st.files(), st.at(r.Digest)}, flags...)...); err != nil {
			return err
		}
	}
	return nil
}

func regctl(ctx context.Context, st *stage, subject ocispec.Descriptor) error {
	host := "reg=" + st.link.Host + ",tls=insecure"
	if st.auth {
		host += ",user=" + user + ",pass=" + password
	}
	out, err := run(ctx, st, "regctl", "--host", host, "artifact", "list", "--format", "{{json .Descriptors}}", st.at(subject.Digest.String()))
	if err != nil {
		return err
	}
	var found []ocispec.Descriptor
	if err := json.Unmarshal(out, &found); err != nil {
		return err
	}
	for _, r := range found {
		if _, err := run(ctx, st, "regctl", "--host", host, "artifact", "get", "-o", st.files(), st.at(r.Digest.String())); err != nil {
			return err
		}
	}
	return nil
}

// files is where tools leave what they bring.
func (st *stage) files() string { return st.dir + "/files" }

func run(ctx context.Context, st *stage, name string, args ...string) ([]byte, error) {
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errOut, append(os.Environ(), "HOME="+st.dir)
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s (`make tools` installs it)", name, args, err, errOut.String())
	}
	return out.Bytes(), nil
}
