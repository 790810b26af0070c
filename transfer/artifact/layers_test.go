package artifact

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// Layers have all their annotations, each within the limit.
func TestReadLayers(t *testing.T) {
	t.Parallel()
	layer := func(value string) string {
		return fmt.Sprintf(`{"mediaType":"text/plain","digest":"sha256:a","size":1,"annotations":{"dev.cosignproject.cosign/signature":%q,"other":"x"}}`, value)
	}
	layers, err := ReadLayers([]byte(`{"config":{},"layers":[` + layer("first") + `,` + layer("second") + `,{"mediaType":"text/html"}],"annotations":{"a":"b"}}`))
	if err != nil || len(layers) != 3 || layers[1].Annotations["dev.cosignproject.cosign/signature"] != "second" || layers[1].Annotations["other"] != "x" || layers[2].Annotations != nil {
		t.Errorf("%+v, %v", layers, err)
	}
	if _, err := ReadLayers([]byte(`{"layers":[` + layer("x") + `,` + layer(strings.Repeat("x", MaxAnnotations)) + `]}`)); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "layer 2") {
		t.Errorf("long annotations: %v", err)
	}
	for _, data := range []string{`[]`, `{"layers":[{"annotations":{"a":1}}]}`, `{"layers":[{"annotations":{"a":"b","a":"c"}}]}`, `{"layers":[1]}`, `{"layers":{}}`} {
		if _, err := ReadLayers([]byte(data)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", data, err)
		}
	}
	if layers, err := ReadLayers([]byte(`{}`)); err != nil || len(layers) != 0 {
		t.Errorf("no layers: %v, %v", layers, err)
	}
}
