package gate

import (
	"fmt"
	"strings"

	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

const (
	// maxText is how many bytes a refusal may have: the API server of Kubernetes refuses
	// events of 1,024, and CRI and the kubelet put words around it.
	maxText = 860
	// maxName is how many bytes a refusal shows of a name beside that which is judged.
	maxName = 200
)

// text is the refusal of a container. The reason names the image as its rule knows it.
func text(image Image, v named) string {
	out := verdict.Prefix + v.Reason
	if image.Name == v.Name {
		return clip(out)
	}
	other := fmt.Sprintf(" (the container names it %s: of all names of an image the strictest rule holds)", clipName(image.String()))
	return clipTo(out, maxText-len(other)) + other
}

func clip(s string) string { return clipTo(s, maxText) }

func clipName(s string) string { return clipTo(s, maxName) }

func clipTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}
