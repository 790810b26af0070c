package referrers

import (
	"cmp"
	"context"
	"slices"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
)

// survey is what a namespace has: its images by name, and who uses them.
type survey struct {
	images  []usedImage
	strange []strayContainer
}

// usedImage is an image under one of its names, and the containers whose records name it.
type usedImage struct {
	images.Image
	containers []string // IDs, sorted
}

// strayContainer is a container whose record names an image that the namespace does not have:
// it was removed, or never had a record.
type strayContainer struct {
	Container string `json:"container"`
	Image     string `json:"image"`
}

// takeSurvey asks the daemon for the images and containers of the namespace.
func takeSurvey(ctx context.Context, client *containerd.Client) (*survey, error) {
	list, err := client.ImageService().List(ctx)
	if err != nil {
		return nil, err
	}
	running, err := client.ContainerService().List(ctx)
	if err != nil {
		return nil, err
	}
	return surveyOf(list, running), nil
}

// surveyOf joins images and containers by name. CRI gives each image a record more, named by
// the digest of its config: it is left out where the same image has a name that tells its
// repository, and a container that names it uses all of these.
func surveyOf(list []images.Image, running []containers.Container) *survey {
	named := map[digest.Digest]bool{}
	for _, image := range list {
		named[image.Target.Digest] = named[image.Target.Digest] || !isDigest(image.Name)
	}
	users, aliasOf := map[string][]string{}, map[string]digest.Digest{}
	s, usersOf := &survey{images: []usedImage{}, strange: []strayContainer{}}, map[digest.Digest][]string{}
	for _, image := range list {
		if isDigest(image.Name) && named[image.Target.Digest] {
			aliasOf[image.Name] = image.Target.Digest
			continue
		}
		users[image.Name] = []string{}
		s.images = append(s.images, usedImage{Image: image})
	}
	for _, c := range running {
		target, alias := aliasOf[c.Image]
		switch _, known := users[c.Image]; {
		case known:
			users[c.Image] = append(users[c.Image], c.ID)
		case alias:
			usersOf[target] = append(usersOf[target], c.ID)
		case c.Image != "":
			s.strange = append(s.strange, strayContainer{c.ID, c.Image})
		}
	}
	for i, image := range s.images {
		s.images[i].containers = append(users[image.Name], usersOf[image.Target.Digest]...)
		slices.Sort(s.images[i].containers)
	}
	slices.SortFunc(s.images, func(a, b usedImage) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.strange, func(a, b strayContainer) int { return cmp.Compare(a.Container, b.Container) })
	return s
}

// isDigest reports whether a name is no more than a digest.
func isDigest(name string) bool {
	_, err := digest.Parse(name)
	return err == nil
}
