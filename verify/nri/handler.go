//go:build linux

package nri

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/gate"
)

// judger is the part of a gate.Gate that a handler needs.
type judger interface {
	Judge(ctx context.Context, image gate.Image) error
}

// handler answers NRI over one connection.
type handler struct {
	gate         judger
	synchronized chan struct{} // is closed when NRI begins to ask
	once         sync.Once

	mu     sync.Mutex
	passed string // the container that was judged last, and is not validated yet
}

var (
	_ stub.SynchronizeInterface                 = (*handler)(nil)
	_ stub.CreateContainerInterface             = (*handler)(nil)
	_ stub.ValidateContainerAdjustmentInterface = (*handler)(nil)
)

// Synchronize is told of containers that are there. They are not touched.
func (h *handler) Synchronize(context.Context, []*api.PodSandbox, []*api.Container) ([]*api.ContainerUpdate, error) {
	h.once.Do(func() { close(h.synchronized) })
	return nil, nil
}

// CreateContainer refuses a container by its error, and adjusts none.
func (h *handler) CreateContainer(ctx context.Context, _ *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	if err := h.judge(ctx, c); err != nil {
		return nil, nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passed = c.GetId() // NRI asks about one container at a time
	return nil, nil, nil
}

// ValidateContainerAdjustment refuses a container that was not judged. Where the connection
// breaks while NRI waits for a verdict it goes on without, but not without those who validate.
func (h *handler) ValidateContainerAdjustment(ctx context.Context, req *api.ValidateContainerAdjustmentRequest) error {
	h.mu.Lock()
	passed := h.passed != "" && h.passed == req.GetContainer().GetId()
	h.passed = ""
	h.mu.Unlock()
	if passed {
		return nil
	}
	return h.judge(ctx, req.GetContainer())
}

func (h *handler) judge(ctx context.Context, c *api.Container) error {
	i := c.GetImage()
	return h.gate.Judge(namespaces.WithNamespace(ctx, namespace), gate.Image{
		Name: i.GetName(), Digest: digest.Digest(i.GetDigest()), Config: digest.Digest(i.GetConfigDigest()),
	})
}
