//go:build linux

package nri

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	validator "github.com/containerd/nri/plugins/default-validator"

	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
	"github.com/transfer-referrers/transfer-referrers/verify/sigstore/sigstoretest"
)

// runtime is containerd's side of NRI.
type runtime struct {
	*adaptation.Adaptation
	socket string
}

// startNRI starts NRI, which refuses containers while the gate is not there.
func startNRI(t testing.TB) *runtime {
	t.Helper()
	nrilog.Set(quiet{})
	dir, err := os.MkdirTemp("", "nri-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &runtime{socket: filepath.Join(dir, "nri.sock")}
	r.Adaptation, err = adaptation.New("containerd", "v2.4.2",
		func(ctx context.Context, sync adaptation.SyncCB) error { _, err := sync(ctx, nil, nil); return err },
		func(context.Context, []*adaptation.ContainerUpdate) ([]*adaptation.ContainerUpdate, error) {
			return nil, nil
		},
		adaptation.WithSocketPath(r.socket), adaptation.WithPluginPath(filepath.Join(dir, "plugins")), adaptation.WithPluginConfigPath(filepath.Join(dir, "conf")),
		adaptation.WithDefaultValidator(&validator.DefaultValidatorConfig{Enable: true, RequiredPlugins: []string{Name}}))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

// create asks NRI about a container of an image, as CRI does.
func (r *runtime) create(id string, image gate.Image) error {
	_, err := r.CreateContainer(context.Background(), &adaptation.CreateContainerRequest{
		Pod: &api.PodSandbox{Id: "pod"},
		Container: &api.Container{Id: id, PodSandboxId: "pod", Image: &api.Image{
			Name: image.Name, Digest: image.Digest.String(), ConfigDigest: image.Config.String(),
		}},
	})
	return err
}

// want creates a container until NRI answers as it should: the gate may be about to connect.
func (r *runtime) want(t testing.TB, image gate.Image, says string) {
	t.Helper()
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = r.create("c", image); err == nil && says == "" || err != nil && says != "" && strings.Contains(err.Error(), says) {
			return
		}
	}
	t.Fatalf("%s: %v, want %q", image, err, says)
}

// relay stands between the gate and NRI, to cut them off.
type relay struct {
	socket string
	mu     sync.Mutex
	conns  []net.Conn
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	r := &relay{socket: to + ".relay"}
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); r.cut() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, near, far)
			r.mu.Unlock()
			go func() { _, _ = io.Copy(near, far); _ = near.Close() }()
			go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
		}
	}()
	return r
}

// cut ends all connections, and returns how many there were.
func (r *relay) cut() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.conns) / 2
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
	return n
}

func startGate(t testing.TB, g *gate.Gate, socket string) *connector {
	t.Helper()
	c := &connector{gate: g, path: socket}
	c.start(t.Context())
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// NRI asks the gate of each container, by the plugin's name that its validator requires, and
// refuses what the gate refuses.
func TestNRIAsksTheGate(t *testing.T) {
	s := newShelf(t)
	signed, index := s.add(repository + ":signed")
	s.sign(index, s.key)
	unsigned, _ := s.add(repository + ":unsigned")
	r := startNRI(t)
	missing := `required plugin "referrers-gate" not present`
	if err := r.create("c", signed); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("before there is a gate: %v", err)
	}
	c := startGate(t, s.gate(gate.Enforce), r.socket)
	r.want(t, signed, "")
	r.want(t, unsigned, "SignatureValidationFailed: image "+unsigned.Name+" is refused: ")
	r.want(t, gate.Image{}, "SignatureValidationFailed: image without a name is refused: it could not be judged: the runtime does not say which image")
	s.trusts(sigstoretest.NewKey(t))
	r.want(t, signed, "needs a signature by ci")
	s.trusts(s.key)
	r.want(t, signed, "")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r.want(t, signed, missing)
	r.want(t, unsigned, missing)
}

// connection tells whether containers are judged.
type connection struct{ up atomic.Bool }

func (*connection) Creation(verdict.Result, policy.Verify, time.Duration) {}
func (c *connection) GateConnected(connected bool)                        { c.up.Store(connected) }

// A container is never created unjudged, whenever the connection breaks: NRI goes on without
// a plugin that it loses while it waits for it, but not without one that validates.
func TestConnectionThatBreaksRefuses(t *testing.T) {
	var c connection
	breakConnections(t, &c, func(cuts int) {
		for end := time.Now().Add(time.Second); !c.up.Load() && time.Now().Before(end); {
			time.Sleep(50 * time.Microsecond)
		}
		time.Sleep(time.Duration(cuts%31) * 100 * time.Microsecond)
	})
}

// breakConnections creates containers while connections are cut, after wait each.
func breakConnections(t *testing.T, c *connection, wait func(cuts int)) {
	t.Helper()
	s := newShelf(t)
	signed, index := s.add(repository + ":signed")
	s.sign(index, s.key)
	unsigned, _ := s.add(repository + ":unsigned")
	r := startNRI(t)
	relay := startRelay(t, r.socket)
	startGate(t, s.observed(c), relay.socket)
	r.want(t, signed, "")

	ended := make(chan int)
	go func() {
		cuts := 0
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); wait(cuts) {
			cuts += relay.cut()
		}
		ended <- cuts
	}()
	created, refused := 0, 0
	for cuts := 0; cuts == 0; {
		if err := r.create("unsigned", unsigned); err == nil {
			t.Fatal("an image that is refused was created")
		}
		if err := r.create("signed", signed); err == nil {
			created++
		} else {
			refused++
		}
		select {
		case cuts = <-ended:
			t.Logf("%d connections were cut; of the signed image %d containers were created, and %d refused", cuts, created, refused)
			if cuts < 20 || created == 0 || refused == 0 {
				t.Errorf("the test has cut too little: %d connections, %d refusals", cuts, refused)
			}
		default:
		}
	}
	r.want(t, signed, "")
	r.want(t, unsigned, "SignatureValidationFailed: ")
}

// The socket of another daemon is not used: its images are others.
func TestSocketOfAnotherProcess(t *testing.T) {
	conn, err := dial(t.Context(), foreignSocket(t))
	if err == nil {
		_ = conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "and not by this containerd") {
		t.Errorf("%v", err)
	}
}
