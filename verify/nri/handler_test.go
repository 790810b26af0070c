//go:build linux

package nri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/nri/pkg/api"

	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
)

// fake judges by what it is told to, and counts.
type fake struct {
	err   error
	asked []gate.Image
	in    string
}

func (f *fake) Judge(ctx context.Context, image gate.Image) error {
	f.asked = append(f.asked, image)
	f.in, _ = namespaces.Namespace(ctx)
	return f.err
}

// A container is judged once, and again where it is validated without having been.
func TestContainerIsJudgedOnce(t *testing.T) {
	t.Parallel()
	f := &fake{}
	h := &handler{gate: f}
	c := &api.Container{Id: "c", Image: &api.Image{Name: "name", Digest: "sha256:d", ConfigDigest: "sha256:c"}}
	validate := func(c *api.Container) error {
		return h.ValidateContainerAdjustment(t.Context(), &api.ValidateContainerAdjustmentRequest{Container: c})
	}
	if _, _, err := h.CreateContainer(t.Context(), nil, c); err != nil {
		t.Fatal(err)
	}
	if err := validate(c); err != nil || len(f.asked) != 1 {
		t.Errorf("%v, judged %d times", err, len(f.asked))
	}
	if want := (gate.Image{Name: "name", Digest: "sha256:d", Config: "sha256:c"}); f.asked[0] != want || f.in != "k8s.io" {
		t.Errorf("asked %+v in namespace %q", f.asked, f.in)
	}
	f.err = errors.New("refused")
	for _, c := range []*api.Container{c, {Id: "other"}, {}} {
		if err := validate(c); err == nil {
			t.Errorf("container %q passed without having been judged", c.Id)
		}
	}
	if _, _, err := h.CreateContainer(t.Context(), nil, c); err == nil {
		t.Error("a refusal was lost")
	}
	if err := validate(c); err == nil {
		t.Error("a container that was refused is validated")
	}
}

type (
	unnamed interface{ GetID() string }
	named   interface{ GetImage() *api.Image }
	v23     struct{}
	v24     struct{}
)

func (v23) CreateContainer(context.Context, string, unnamed) (string, error) { return "", nil }
func (v24) CreateContainer(context.Context, string, named) (string, error)   { return "", nil }

// What containerd takes for a container tells whether it names the image.
func TestNRIThatNamesNoImages(t *testing.T) {
	t.Parallel()
	if namesImages(v23{}) || !namesImages(v24{}) || !namesImages(struct{}{}) {
		t.Error("it is told wrongly")
	}
}

// foreignSocket is served by another process: this test's program again.
func foreignSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nri.sock")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestServesASocket$")
	cmd.Env = append(os.Environ(), "SERVE_SOCKET="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if time.Now().After(end) {
			t.Fatal(fmt.Errorf("%s is not served", path))
		}
	}
}

// It serves a socket where another test asks for it, and is no test else.
func TestServesASocket(t *testing.T) {
	path := os.Getenv("SERVE_SOCKET")
	if path == "" {
		return
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := l.Accept(); err != nil {
			return
		}
	}
}
