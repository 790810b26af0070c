package sigstore

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"errors"

	"github.com/go-json-experiment/json/jsontext"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
)

// The annotations of cosign's layers. A chain of certificates (dev.sigstore.cosign/chain) is not
// read: the roots of the trust have the intermediate certificates.
const (
	signatureAnnotation   = "dev.cosignproject.cosign/signature"
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	bundleAnnotation      = "dev.sigstore.cosign/bundle"
	timestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp"
)

func checkAnnotations(annotations map[string]string) error {
	size := 0
	for _, key := range []string{signatureAnnotation, certificateAnnotation, bundleAnnotation, timestampAnnotation} {
		size += len(annotations[key])
	}
	if size > maxAnnotations {
		return tooMany("bytes of cosign's annotations", size, maxAnnotations)
	}
	return nil
}

// readProofs reads the certificate, the log entry and the timestamp. What is missing is for
// the trust to miss.
func readProofs(annotations map[string]string) (*protobundle.VerificationMaterial, error) {
	text := annotations[certificateAnnotation]
	if text == "" {
		return nil, refuse("it has no certificate, and this trust has identities, which have one",
			"name a trust with keys, or sign with a certificate")
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, refuse("the annotation "+certificateAnnotation+" is not one PEM certificate", "sign again with cosign")
	}
	m := &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_Certificate{
		Certificate: &protocommon.X509Certificate{RawBytes: block.Bytes},
	}}
	if text := annotations[bundleAnnotation]; text != "" {
		entry, err := readLogEntry([]byte(text))
		if err != nil {
			return nil, refuseFor("the annotation "+bundleAnnotation+" cannot be read", err, "sign again with cosign")
		}
		m.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	if text := annotations[timestampAnnotation]; text != "" {
		timestamp := &protocommon.RFC3161SignedTimestamp{}
		err := readDocument([]byte(text), members{"SignedRFC3161Timestamp": raw(&timestamp.SignedTimestamp)})
		if err != nil {
			return nil, refuseFor("the annotation "+timestampAnnotation+" cannot be read", err, "sign again with cosign")
		}
		m.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{timestamp},
		}
	}
	return m, nil
}

// readLogEntry reads the entry of a Rekor v1 log with the promise to include it, as cosign
// writes both.
func readLogEntry(data []byte) (*protorekor.TransparencyLogEntry, error) {
	if err := countTokens(data, maxTokens); err != nil {
		return nil, err
	}
	entry := &protorekor.TransparencyLogEntry{
		LogId:            &protocommon.LogId{},
		KindVersion:      &protorekor.KindVersion{},
		InclusionPromise: &protorekor.InclusionPromise{},
	}
	var logID string
	err := readDocument(data, members{
		"SignedEntryTimestamp": raw(&entry.InclusionPromise.SignedEntryTimestamp),
		"Payload": func(dec *jsontext.Decoder) error {
			return readObject(dec, members{
				"body":           raw(&entry.CanonicalizedBody),
				"integratedTime": integer(&entry.IntegratedTime),
				"logIndex":       integer(&entry.LogIndex),
				"logID":          text(&logID),
			})
		},
	})
	if err != nil {
		return nil, err
	}
	if entry.LogId.KeyId, err = hex.DecodeString(logID); err != nil {
		return nil, err
	}
	err = readDocument(entry.CanonicalizedBody, members{
		"kind":       text(&entry.KindVersion.Kind),
		"apiVersion": text(&entry.KindVersion.Version),
	})
	if err == nil && entry.KindVersion.Kind == "intoto" && entry.KindVersion.Version == "0.0.1" {
		err = errors.New("an entry of the kind intoto 0.0.1, which holds no signature to compare; cosign v2.2 and later log another")
	}
	return entry, err
}
