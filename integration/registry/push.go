package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PushBlob puts a blob into the repository, past the front.
func (r *Registry) PushBlob(ctx context.Context, repository string, data []byte) (digest.Digest, error) {
	dgst := digest.FromBytes(data)
	resp, err := do(ctx, http.MethodPost, r.Backend+"/v2/"+repository+"/blobs/uploads/", "", nil)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("start upload to %s: %s", repository, resp.Status)
	}
	location, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return "", err
	}
	q := location.Query()
	q.Set("digest", dgst.String())
	location.RawQuery = q.Encode()
	resp, err = do(ctx, http.MethodPut, location.String(), "application/octet-stream", data)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("upload %s to %s: %s", dgst, repository, resp.Status)
	}
	return dgst, nil
}

// PushManifest puts a manifest or index into the repository, past the front,
// under a tag or, where reference is empty, its digest.
func (r *Registry) PushManifest(ctx context.Context, repository, reference, mediaType string, data []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if reference == "" {
		reference = desc.Digest.String()
	}
	resp, err := do(ctx, http.MethodPut, r.Backend+"/v2/"+repository+"/manifests/"+url.PathEscape(reference), mediaType, data)
	if err != nil {
		return desc, err
	}
	if resp.StatusCode != http.StatusCreated {
		return desc, fmt.Errorf("put manifest %s:%s: %s", repository, reference, resp.Status)
	}
	return desc, nil
}

// DeleteManifest removes a manifest by its digest. Only Olareg allows it.
func (r *Registry) DeleteManifest(ctx context.Context, repository string, dgst digest.Digest) error {
	resp, err := do(ctx, http.MethodDelete, fmt.Sprintf("%s/v2/%s/manifests/%s", r.Backend, repository, dgst), "", nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("delete manifest %s: %s", dgst, resp.Status)
	}
	return nil
}

// Attach puts an artifact with one blob that refers to the subject into the
// repository, and returns its manifest's descriptor.
func (r *Registry) Attach(ctx context.Context, repository string, subject ocispec.Descriptor, artifactType string, annotations map[string]string, blob []byte) (ocispec.Descriptor, error) {
	if _, err := r.PushBlob(ctx, repository, ocispec.DescriptorEmptyJSON.Data); err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := r.PushBlob(ctx, repository, blob); err != nil {
		return ocispec.Descriptor{}, err
	}
	data, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       ocispec.DescriptorEmptyJSON,
		Layers:       []ocispec.Descriptor{{MediaType: "application/octet-stream", Digest: digest.FromBytes(blob), Size: int64(len(blob))}},
		Subject:      &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations:  annotations,
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := r.PushManifest(ctx, repository, "", ocispec.MediaTypeImageManifest, data)
	desc.ArtifactType, desc.Annotations = artifactType, annotations
	return desc, err
}

func do(ctx context.Context, method, address, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp, nil
}
