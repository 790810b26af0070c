package referrers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/artifact"
	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

var inventoryCommand = &cli.Command{
	Name:      "inventory",
	Usage:     "List the images of a namespace with containers, SBOMs, attestations and verdicts",
	ArgsUsage: "[flags]",
	Description: `Print what the namespace has: each image once, with its names, the containers whose
records name it, its SBOMs, attestations and signatures by reference, and the daemon's
verdict on each name. No registry is asked; nothing is changed.

As CycloneDX, each image is a component of a bill of materials whose external references
lead to its SBOMs and attestations.

Examples:
  ctr -n k8s.io referrers inventory
  ctr -n k8s.io referrers inventory --format cyclonedx > node.cdx.json`,
	Flags: []cli.Flag{
		&cli.StringFlag{
			Name:  "format",
			Usage: `"json" or "cyclonedx"`,
			Value: "json",
		},
	},
	Action: func(ctx context.Context, cmd *cli.Command) error {
		format := cmd.String("format")
		switch {
		case cmd.NArg() > 0:
			return usagef("inventory lists every image; leave out %q", cmd.Args().First())
		case format != "json" && format != "cyclonedx":
			return usagef(`format %q is not known; write "json" or "cyclonedx"`, format)
		}
		client, ctx, cancel, err := commands.NewClient(ctx, cmd)
		if err != nil {
			return err
		}
		defer cancel()
		i, err := takeInventory(ctx, client)
		if err != nil {
			return err
		}
		if format == "cyclonedx" {
			err = printJSON(cmd.Root().Writer, billOf(i, time.Now()))
		} else {
			err = printJSON(cmd.Root().Writer, i)
		}
		if err != nil {
			return err
		}
		return i.ends()
	},
}

// inventory is what a namespace has. Its JSON is what `ctr referrers inventory` prints.
type inventory struct {
	Namespace string           `json:"namespace"`
	Images    []inventoryImage `json:"images"`
	// Strays are containers whose records name no image of the namespace.
	Strays []strayContainer `json:"containersWithoutImage"`
	// Unjudged says why the daemon gives no verdict on any image; empty where it does.
	Unjudged string `json:"unjudged,omitempty"`
}

// inventoryImage is one image under all its names.
type inventoryImage struct {
	Digest digest.Digest `json:"digest"`
	Names  []imageName   `json:"names"`
	// Containers are the IDs of those whose records have one of the names, sorted.
	Containers []string            `json:"containers"`
	Status     labels.Status       `json:"status"`
	Checked    time.Time           `json:"checked,omitzero"`
	SBOMs      []inventoryReferrer `json:"sboms"`
	// Attestations are those that hold no SBOM.
	Attestations []inventoryReferrer `json:"attestations"`
	Signatures   []inventoryReferrer `json:"signatures"`
	Other        []inventoryReferrer `json:"other"`
	Error        string              `json:"error,omitempty"` // why its referrers could not be read
}

// imageName is a name of an image, and the verdict on the image under it.
type imageName struct {
	Image  string         `json:"image"`
	Result verdict.Result `json:"result,omitempty"`
	Mode   policy.Verify  `json:"mode,omitempty"`
	Rule   string         `json:"rule,omitempty"`
	Reason string         `json:"reason,omitempty"`
	Error  string         `json:"error,omitempty"` // why there is no verdict
}

// inventoryReferrer is a stored referrer, or a referrer of one.
type inventoryReferrer struct {
	Digest       digest.Digest `json:"digest"`
	ArtifactType string        `json:"artifactType"`
	// Subjects are what it refers to: the image's index or manifests, or another referrer.
	Subjects []digest.Digest `json:"subjects"`
	// PredicateTypes are what it is said to attest; nothing of it is verified here.
	PredicateTypes []string  `json:"predicateTypes,omitempty"`
	Size           int64     `json:"size"` // with all it names, in bytes
	Unlisted       time.Time `json:"unlisted,omitzero"`
}

// takeInventory reads the store, and asks the daemon for its verdicts.
func takeInventory(ctx context.Context, client *containerd.Client) (*inventory, error) {
	s, err := takeSurvey(ctx, client)
	if err != nil {
		return nil, err
	}
	out := &inventory{Images: []inventoryImage{}, Strays: s.strange, Unjudged: whyInactive(ctx, client)}
	out.Namespace, _ = namespaces.Namespace(ctx)
	at := map[digest.Digest]int{}
	for _, used := range s.images {
		i, known := at[used.Target.Digest]
		if !known {
			i = len(out.Images)
			at[used.Target.Digest] = i
			image, err := readImage(ctx, client, used)
			if err != nil {
				image.Error = err.Error()
			}
			out.Images = append(out.Images, image)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		image := &out.Images[i]
		image.Names = append(image.Names, judgeName(ctx, client, used.Name, out.Unjudged == ""))
		image.Containers = append(image.Containers, used.containers...)
		slices.Sort(image.Containers)
		image.Containers = slices.Compact(image.Containers)
	}
	return out, nil
}

func judgeName(ctx context.Context, client *containerd.Client, name string, active bool) imageName {
	n := imageName{Image: name}
	if !active {
		return n
	}
	v, err := verifyStored(ctx, client, name, false, nil)
	if err != nil {
		n.Error = err.Error()
		return n
	}
	n.Result, n.Mode, n.Rule, n.Reason = v.Result, v.Mode, v.Rule, v.Reason
	return n
}

// readImage reads what is stored with an image. On an error there is what could be read.
func readImage(ctx context.Context, client *containerd.Client, used usedImage) (inventoryImage, error) {
	image := inventoryImage{
		Digest: used.Target.Digest, Names: []imageName{}, Containers: []string{}, Status: labels.Unknown,
		SBOMs: []inventoryReferrer{}, Attestations: []inventoryReferrer{}, Signatures: []inventoryReferrer{}, Other: []inventoryReferrer{},
	}
	store := client.ContentStore()
	read, err := stored.Read(ctx, store, used.Image)
	if err == nil {
		err = stored.AddSizes(ctx, store, read.Referrers)
	}
	if err != nil {
		return image, err
	}
	image.Status, image.Checked = read.Status, read.Checked
	predicates := func(r stored.Referrer) []string { return predicateTypes(ctx, store, r) }
	image.sort(read.Referrers, predicates)
	return image, nil
}

// sort puts each referrer into its list, once, whatever it refers to.
func (i *inventoryImage) sort(referrers []stored.Referrer, predicates func(stored.Referrer) []string) {
	subjects := subjectsOf(referrers)
	for _, r := range flat(referrers) {
		entry := inventoryReferrer{
			Digest: r.Digest, ArtifactType: r.ArtifactType, Subjects: subjects[r.Digest],
			PredicateTypes: predicates(r), Size: r.Size + r.ContentSize, Unlisted: r.Unlisted,
		}
		list := &i.Other
		switch set := artifact.SetOf(policyOf(r)); {
		case set == artifact.SetSBOMs || set == artifact.SetAttestations && slices.ContainsFunc(entry.PredicateTypes, isSBOM):
			list = &i.SBOMs
		case set == artifact.SetAttestations:
			list = &i.Attestations
		case set == artifact.SetSignatures:
			list = &i.Signatures
		}
		*list = append(*list, entry)
	}
}

// subjectsOf returns all that each referrer refers to, sorted.
func subjectsOf(referrers []stored.Referrer) map[digest.Digest][]digest.Digest {
	out := map[digest.Digest][]digest.Digest{}
	var walk func([]stored.Referrer)
	walk = func(list []stored.Referrer) {
		for _, r := range list {
			out[r.Digest] = append(out[r.Digest], r.Subject)
			walk(r.Referrers)
		}
	}
	walk(referrers)
	for dgst, subjects := range out {
		slices.Sort(subjects)
		out[dgst] = slices.Compact(subjects)
	}
	return out
}

// predicateTypes returns what a referrer's manifest says that it attests, sorted; none where it
// cannot be read.
func predicateTypes(ctx context.Context, store stored.Store, r stored.Referrer) []string {
	m, err := stored.Manifest(ctx, store, r.Descriptor())
	if err != nil {
		return nil
	}
	layers, _ := evidence.Of(m, func() ([]byte, error) { return stored.ReadManifest(ctx, store, r.Descriptor()) })
	var out []string
	for _, l := range layers {
		if l.PredicateType != "" {
			out = append(out, l.PredicateType)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// isSBOM reports whether a predicate is an SBOM (in-toto's predicates SPDX and CycloneDX).
func isSBOM(predicateType string) bool {
	return strings.HasPrefix(predicateType, "https://spdx.dev/Document") || strings.HasPrefix(predicateType, "https://cyclonedx.org/bom")
}

// ends is the error of an inventory that lacks something.
func (i *inventory) ends() error {
	failed := 0
	for _, image := range i.Images {
		if image.Error != "" {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("the referrers of %d of %d images could not be read; the inventory says why", failed, len(i.Images))
	}
	return nil
}
