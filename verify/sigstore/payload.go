package sigstore

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/transfer/evidence"
)

// payloadType is critical.type of the payloads that cosign signs. The type of GPG's simple
// signing, "atomic container signature", is no signature of cosign.
const payloadType = "cosign container image signature"

// readPayload reads a simple-signing payload, which must be about subject. What is critical
// must be understood: other members there are refused, as github.com/containers/image does.
func readPayload(payload []byte, subject digest.Digest) (claim, error) {
	var typ, manifest, reference string
	object := func(read members) func(*jsontext.Decoder) error {
		return func(dec *jsontext.Decoder) error { return readOnly(dec, read) }
	}
	err := readDocument(payload, members{
		"critical": object(members{
			"type":     text(&typ),
			"image":    object(members{"docker-manifest-digest": text(&manifest)}),
			"identity": object(members{"docker-reference": text(&reference)}),
		}),
		"optional": skip,
	})
	switch {
	case err != nil:
		return claim{}, refuseFor("the simple-signing payload cannot be read", err, "sign it with cosign")
	case typ != payloadType:
		return claim{}, refuse(fmt.Sprintf("the payload's critical.type is %s and not %q", cut(typ), payloadType), "sign it with cosign")
	case manifest != subject.String():
		return claim{}, refuse(fmt.Sprintf("the payload is about %s and not %s", cut(manifest), subject), "sign this very digest")
	}
	c := claim{kind: evidence.Signature}
	if reference != "" {
		c.names = []string{reference}
	}
	return c, nil
}
