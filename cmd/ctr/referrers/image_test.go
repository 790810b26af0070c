package referrers

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestAtDigest(t *testing.T) {
	other := strings.Replace(root.String(), "sha256:", "sha256:0", 1)[:len(root.String())]
	for name, want := range map[string]string{
		"example.com/app:v1":          "example.com/app:v1@" + root.String(),
		"127.0.0.1:5000/app":          "127.0.0.1:5000/app@" + root.String(),
		"example.com/app@" + other:    "example.com/app@" + root.String(),
		"example.com/app:v1@" + other: "example.com/app:v1@" + root.String(),
		root.String():                 "", // the kubelet's name for the image's configuration
		"app":                         "",
		"example.com/app:v1\x1b[31m":  "",
	} {
		got, err := atDigest(images.Image{Name: name, Target: ocispec.Descriptor{Digest: root}})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "ctr images ls") {
			t.Errorf("the error says no remedy: %v", err)
		}
	}
}
