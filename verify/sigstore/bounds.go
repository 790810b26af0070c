package sigstore

// What evidence may have. sigstore-go bounds some of it too, most after it has parsed it.
const (
	// maxFrame is how many bytes a bundle may have beside its payload: certificate, log
	// entries, timestamps. A bundle of sigstore's public instance has 6 KiB.
	maxFrame = 256 << 10
	// maxTokens is how many JSON tokens a bundle, an envelope or an annotation may have. An
	// inclusion proof in a log of 2^64 entries has 64.
	maxTokens = 4096
	// maxAnnotations is how many bytes the annotations that are read may have together.
	maxAnnotations = 128 << 10
	// maxEntries is how many log entries evidence may have, and how many timestamps.
	maxEntries = 8
	// maxTimestamp is how many bytes a timestamp may have: what reads them calls itself for
	// each level. With three certificates of RSA one has 7 KiB.
	maxTimestamp = 16 << 10
	// maxCertificates is how long a certificate chain in a bundle may be. Only its first
	// is read.
	maxCertificates = 8

	// maxSubjects is how many subjects a statement may have, and maxDigests how many digests
	// each: those of sigstore-go.
	maxSubjects = 1024
	maxDigests  = 32
	// maxMembers is how many members an object within signed JSON may have, together with
	// those that it lies in. Their names are held to find one that stands there twice.
	maxMembers = 1 << 16
	// maxText is how many bytes a name, a type or an identity may have.
	maxText = 2048
)
