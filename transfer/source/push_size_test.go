package source

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// A large layer is pushed over a connection of its own, as it is pulled.
func TestLargeLayerIsPushedOverHTTP1(t *testing.T) {
	var mu sync.Mutex
	uploads := map[int64]string{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPost:
			w.Header().Set("Location", "/v2/app/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut:
			n, _ := io.Copy(io.Discard, r.Body)
			mu.Lock()
			uploads[n] = r.Proto
			mu.Unlock()
			w.Header().Set("Docker-Content-Digest", r.URL.Query().Get("digest"))
			w.WriteHeader(http.StatusCreated)
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	root := t.TempDir()
	dir := filepath.Join(root, strings.Replace(host, ":", "_", 1)+"_")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), fmt.Appendf(nil, "server = %q\nskip_verify = true\n", server.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	message, err := typeurl.MarshalAny(&transfertypes.OCIRegistry{Reference: host + "/app:v1", Resolver: &transfertypes.RegistryResolver{HostDir: root}})
	if err != nil {
		t.Fatal(err)
	}
	s := &Source{}
	if err := s.UnmarshalAny(t.Context(), nil, message); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Pusher(t.Context(), ocispec.Descriptor{Digest: digest.FromString("image")})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{10, registry.LargeBlob} {
		data := bytes.Repeat([]byte("x"), int(size))
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: size}
		if err := pushBlob(t.Context(), p, desc, data); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if uploads[10] != "HTTP/2.0" || uploads[registry.LargeBlob] != "HTTP/1.1" {
		t.Errorf("pushed over %v", uploads)
	}
}

// pushBlob pushes as remotes.PushHandler does.
func pushBlob(ctx context.Context, p remotes.Pusher, desc ocispec.Descriptor, data []byte) error {
	w, err := content.OpenWriter(ctx, p.(content.Ingester), content.WithRef(remotes.MakeRefKey(ctx, desc)), content.WithDescriptor(desc))
	if err != nil {
		return err
	}
	defer w.Close()
	return content.Copy(ctx, w, bytes.NewReader(data), desc.Size, desc.Digest)
}
