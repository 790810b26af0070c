package referrers

import (
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func imageNamed(name string, target digest.Digest) images.Image {
	return images.Image{Name: name, Target: ocispec.Descriptor{Digest: target}}
}

// Each name has the containers that name it; CRI's record by the config's digest is no image of
// its own unless nothing else names the image.
func TestSurvey(t *testing.T) {
	config, other := digest.FromString("config").String(), digest.FromString("other").String()
	s := surveyOf([]images.Image{
		imageNamed(config, root), imageNamed("example.com/b:v1", root), imageNamed("example.com/b@"+root.String(), root),
		imageNamed(other, node), imageNamed("example.com/a:v1", digest.FromString("a")),
	}, []containers.Container{
		{ID: "z", Image: "example.com/b:v1"}, {ID: "y", Image: config}, {ID: "x", Image: other},
		{ID: "w", Image: "example.com/gone:v1"}, {ID: "v"}, {ID: "u", Image: "example.com/b:v1"},
	})
	got := ""
	for _, image := range s.images {
		got += fmt.Sprintln(image.Name, image.containers)
	}
	want := "example.com/a:v1 []\nexample.com/b:v1 [u y z]\nexample.com/b@" + root.String() + " [y]\n" + other + " [x]\n"
	if got != want {
		t.Errorf("the survey is\n%swant\n%s", got, want)
	}
	if fmt.Sprint(s.strange) != "[{w example.com/gone:v1}]" {
		t.Errorf("containers without an image are %v", s.strange)
	}
	if s := surveyOf(nil, nil); s.images == nil || s.strange == nil {
		t.Error("of nothing a list is nil, which JSON writes as null")
	}
}
