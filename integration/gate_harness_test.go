package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// required has NRI's default validator refuse containers while the gate is not there.
const required = `
  [plugins."io.containerd.nri.v1.nri".default_validator]
    enable = true
    required_plugins = ["referrers-gate"]
`

// unrequired is NRI as containerd has it by default.
const unrequired = "  disable = false\n"

// gateRule is a rule for the repository app of the tests' registries, in a table of the
// plugin's; its tables of entries follow.
func gateRule(verify string) string {
	return ruleFor("*/app", fmt.Sprintf("verify = %q", verify))
}

func ruleFor(repository string, lines ...string) string {
	return fmt.Sprintf("\n  [[plugins.\"io.containerd.transfer.v1.referrers\".rules]]\n    repositories = [%q]\n    %s\n", repository, strings.Join(lines, "\n    "))
}

// criNode is a daemon that runs containers of CRI.
type criNode struct {
	*daemon.Daemon
	conn    *grpc.ClientConn
	images  cri.ImageServiceClient
	runtime cri.RuntimeServiceClient
	sandbox string
	pod     *cri.PodSandboxConfig
	count   int
}

// patience is how long a test waits for what the daemon does by itself.
const patience = 20 * time.Second

// startNode starts one with a pod, for containers of it. It skips the test where there is no
// runc.
func startNode(t *testing.T, reg *registry.Registry, nri, plugin string) *criNode {
	t.Helper()
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("containers need runc, which is not installed: apt-get install runc")
	}
	if err := daemon.Root(); err != nil {
		t.Fatal(err)
	}
	pause := pushRunnable(t, reg, "pause", "v1")
	config := active(plugin)
	config.NRI = nri
	config.More = fmt.Sprintf(`
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q
`, pause.name)
	config.Extra = metricsEndpoint
	n := &criNode{Daemon: startDaemon(t, config)}
	if isLTS(t, n.Daemon) {
		t.Skip("the NRI of this containerd does not name images: TestGateSaysWhetherItIsActive")
	}
	n.connect(t)
	n.runPod(t)
	return n
}

// isLTS reports whether the daemon is containerd v2.3.
func isLTS(t *testing.T, d *daemon.Daemon) bool {
	t.Helper()
	v, err := d.Client.Version(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(strings.TrimPrefix(v.Version, "v"), "2.3.")
}

func (n *criNode) connect(t *testing.T) {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+n.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	if n.conn == nil { // before what ends the pod is registered: it runs after that
		t.Cleanup(func() { _ = n.conn.Close() })
	}
	n.conn, n.images, n.runtime = conn, cri.NewImageServiceClient(conn), cri.NewRuntimeServiceClient(conn)
}

func (n *criNode) runPod(t *testing.T) {
	t.Helper()
	n.pod = &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "pod", Uid: "uid", Namespace: "default"},
		LogDirectory: t.TempDir(),
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
		}},
	}
	var answer *cri.RunPodSandboxResponse
	eventually(t, patience, func() (err error) {
		answer, err = n.runtime.RunPodSandbox(testContext(t), &cri.RunPodSandboxRequest{Config: n.pod})
		return err
	})
	n.sandbox = answer.PodSandboxId
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's has ended
		defer cancel()
		if _, err := n.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: n.sandbox}); err != nil {
			t.Error(err)
		}
		if _, err := n.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: n.sandbox}); err != nil {
			t.Error(err)
		}
	})
}

// create creates a container of the image.
func (n *criNode) create(t *testing.T, image string) (string, error) {
	t.Helper()
	n.count++
	answer, err := n.runtime.CreateContainer(testContext(t), &cri.CreateContainerRequest{
		PodSandboxId:  n.sandbox,
		SandboxConfig: n.pod,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: fmt.Sprintf("c%d", n.count)},
			Image:    &cri.ImageSpec{Image: image},
			LogPath:  fmt.Sprintf("c%d.log", n.count),
		},
	})
	return answer.GetContainerId(), err
}

// runs creates and starts a container, which must run.
func (n *criNode) runs(t *testing.T, image string) string {
	t.Helper()
	id, err := n.create(t, image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.runtime.StartContainer(testContext(t), &cri.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	n.wantRunning(t, id)
	return id
}

func (n *criNode) wantRunning(t *testing.T, id string) {
	t.Helper()
	status, err := n.runtime.ContainerStatus(testContext(t), &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	if state := status.Status.State; state != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container is %s", state)
	}
}

// refuses creates a container that must be refused, and leave nothing.
func (n *criNode) refuses(t *testing.T, image string, says ...string) {
	t.Helper()
	before := n.containers(t)
	_, err := n.create(t, image)
	wantError(t, err, says...)
	if after := n.containers(t); after != before {
		t.Errorf("there were %d containers, and are %d", before, after)
	}
}

func (n *criNode) containers(t *testing.T) int {
	t.Helper()
	list, err := n.runtime.ListContainers(testContext(t), &cri.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Containers)
}

// pull is the kubelet's. It returns the digest of the image's config.
func (n *criNode) pull(t *testing.T, image string) string {
	t.Helper()
	answer, err := n.images.PullImage(testContext(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}})
	if err != nil {
		t.Fatal(err)
	}
	return answer.ImageRef
}

func (n *criNode) ctr(t *testing.T, args ...string) string {
	t.Helper()
	return ctr(t, n.Daemon, append([]string{"--namespace", "k8s.io"}, args...)...)
}

// connected waits until containers are judged.
func (n *criNode) connected(t *testing.T, times int) {
	t.Helper()
	eventually(t, patience, func() error {
		if got := len(n.LogLines("referrers: the gate is connected to NRI")); got != times {
			return fmt.Errorf("the gate has connected %d times, want %d", got, times)
		}
		return nil
	})
}

// eventually tries until f succeeds.
func eventually(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// sleeper is a static program that does nothing until it is ended.
const sleeper = `package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
	<-c
}
`

var sleeperBinary []byte

func sleeperOf(t *testing.T) []byte {
	t.Helper()
	if sleeperBinary != nil {
		return sleeperBinary
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(sleeper), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "sleep"), source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "sleep"))
	if err != nil {
		t.Fatal(err)
	}
	sleeperBinary = data
	return data
}

// tarFile is a program or a file of one layer.
type tarFile struct {
	name string
	data []byte
}

func tarOf(t *testing.T, files ...tarFile) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(f.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// pushRunnable puts an image that can run into a repository.
func pushRunnable(t *testing.T, reg *registry.Registry, repository, tag string) ruled {
	t.Helper()
	layer := tarOf(t, tarFile{"sleep", sleeperOf(t)}, tarFile{"text", []byte(t.Name() + tag)})
	config := []byte(fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/sleep"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.FromBytes(layer)))
	push := func(mediaType string, blob []byte) ocispec.Descriptor {
		dgst, err := reg.PushBlob(testContext(t), repository, blob)
		if err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(blob))}
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: push(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{push(ocispec.MediaTypeImageLayer, layer)},
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := reg.PushManifest(testContext(t), repository, tag, m.MediaType, data)
	if err != nil {
		t.Fatal(err)
	}
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	return ruled{desc, reg, reg.Host + "/" + repository + ":" + tag, []digest.Digest{m.Config.Digest, m.Layers[0].Digest}}
}
