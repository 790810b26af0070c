package referrers

import (
	"context"
	"fmt"
	"io"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"

	"github.com/transfer-referrers/transfer-referrers/transfer/explain"
	"github.com/transfer-referrers/transfer-referrers/transfer/policy"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// verifiedImages is what `ctr referrers verify --all --format json` prints.
type verifiedImages struct {
	Namespace string          `json:"namespace"`
	Images    []verifiedImage `json:"images"`
	// Strays are containers whose records name no image of the namespace.
	Strays []strayContainer `json:"containersWithoutImage"`
}

// verifiedImage is the verdict on one image, or why there is none.
type verifiedImage struct {
	Image  string         `json:"image"`
	Digest digest.Digest  `json:"digest"`
	Result verdict.Result `json:"result,omitempty"`
	Mode   policy.Verify  `json:"mode,omitempty"`
	Rule   string         `json:"rule,omitempty"`
	Reason string         `json:"reason,omitempty"`
	// Error says why the image could not be judged; Result is empty then.
	Error      string   `json:"error,omitempty"`
	Containers []string `json:"containers"`
}

// verifyAll judges every image of the namespace, one after the other. One that cannot be judged
// does not keep the others from it.
func verifyAll(ctx context.Context, cmd *cli.Command, format string, wanted []ocispec.Platform) error {
	client, ctx, cancel, err := commands.NewClient(ctx, cmd)
	if err != nil {
		return err
	}
	defer cancel()
	if why := whyInactive(ctx, client); why != "" {
		return fmt.Errorf("no image can be judged: %s", why)
	}
	s, err := takeSurvey(ctx, client)
	if err != nil {
		return err
	}
	all := &verifiedImages{Images: []verifiedImage{}, Strays: s.strange}
	all.Namespace, _ = namespaces.Namespace(ctx)
	for _, used := range s.images {
		v := verifiedImage{Image: used.Name, Digest: used.Target.Digest, Containers: used.containers}
		switch judged, err := verifyStored(ctx, client, used.Name, cmd.Bool("all-platforms"), wanted); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && wasRemoved(ctx, client, used.Name):
			continue
		case err != nil:
			v.Error = err.Error()
		default:
			v.Digest, v.Result, v.Mode, v.Rule, v.Reason = judged.Digest, judged.Result, judged.Mode, judged.Rule, judged.Reason
		}
		all.Images = append(all.Images, v)
	}
	if format == "json" {
		err = printJSON(cmd.Root().Writer, all)
	} else {
		err = all.print(cmd.Root().Writer)
	}
	if err != nil {
		return err
	}
	return all.ends()
}

// verifyStored asks the daemon for its verdict on an image.
func verifyStored(ctx context.Context, client *containerd.Client, name string, all bool, wanted []ocispec.Platform) (*explain.Verification, error) {
	dst := explain.NewVerify(all, wanted...)
	if err := client.Transfer(ctx, image.NewStore(name), dst); err != nil {
		return nil, err
	}
	return dst.Verification(ctx)
}

// wasRemoved reports whether an image has been removed since it was listed.
func wasRemoved(ctx context.Context, client *containerd.Client, name string) bool {
	_, err := client.ImageService().Get(ctx, name)
	return errdefs.IsNotFound(err)
}

// kind is the word for what became of the image.
func (v verifiedImage) kind() string {
	switch {
	case v.Error != "":
		return "error"
	case v.Result == verdict.Refused && v.Mode == policy.VerifyWarn:
		return "warned"
	}
	return string(v.Result)
}

// print prints a line an image, then why each is refused, and how many there are of each kind.
func (a *verifiedImages) print(w io.Writer) error {
	t := newTable(w, "NAME", "DIGEST", "RESULT", "CONTAINERS", "RULE")
	for _, v := range a.Images {
		rule := v.Rule
		if rule == "" {
			rule = "-"
		}
		t.row(v.Image, v.Digest, v.kind(), len(v.Containers), rule)
	}
	if err := t.flush(); err != nil {
		return err
	}
	out := &lines{w: w}
	out.line("", "")
	for _, v := range a.Images {
		switch {
		case v.Error != "":
			out.line("error    ", fmt.Sprintf("image %s could not be judged: %s", v.Image, v.Error))
		case v.Reason != "":
			out.line(fmt.Sprintf("%-9s", v.kind()), v.Reason)
		}
	}
	for _, s := range a.Strays {
		out.line("no image ", fmt.Sprintf("container %s was made from %s, which is not stored under this name any more", s.Container, s.Image))
	}
	out.line("", a.summary())
	return out.err
}

// summary counts the images of each kind, and those that containers use.
func (a *verifiedImages) summary() string {
	var parts []string
	for _, k := range []struct{ kind, text string }{
		{"verified", "verified"}, {"refused", "refused"}, {"warned", "refused with a warning only"},
		{"unverified", "under no rule that verifies"}, {"error", "not judged"},
	} {
		if n, used := a.count(k.kind); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%d used by containers)", n, k.text, used))
		}
	}
	images := fmt.Sprintf("%d images", len(a.Images))
	if len(a.Images) == 1 {
		images = "1 image"
	}
	if len(parts) == 0 {
		return images
	}
	return images + ": " + strings.Join(parts, ", ")
}

// count returns how many images are of a kind, and how many of those containers use.
func (a *verifiedImages) count(kind string) (n, used int) {
	for _, v := range a.Images {
		if v.kind() == kind {
			n++
			used += min(1, len(v.Containers))
		}
	}
	return n, used
}

// ends is the error, with its exit code, that the verdicts on all images amount to.
func (a *verifiedImages) ends() error {
	refused, used := a.count("refused")
	failed, _ := a.count("error")
	unverified, _ := a.count("unverified")
	switch {
	case refused > 0:
		text := fmt.Sprintf("%d of %d images are refused by rules that enforce, %d of them used by containers", refused, len(a.Images), used)
		if failed > 0 {
			text += fmt.Sprintf("; %d more could not be judged", failed)
		}
		return exitf(exitRefused, "%s", text)
	case failed > 0:
		return exitf(exitError, "%d of %d images could not be judged", failed, len(a.Images))
	case unverified > 0 && unverified == len(a.Images):
		return exitf(exitNone, "no rule verifies any of the %d images of namespace %s", unverified, a.Namespace)
	}
	return nil
}
