package integration

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// twins are two annotations that give the referrers of this test digests with the
// same 12 hex digits. TRANSFER_REFERRERS_TWINS=1 go test -run TwelveDigits . looks for
// them, in half a minute and 512 MiB.
var twins = [2]uint32{0x97c3d5, 0xdf1549}

func twin(n uint32) map[string]string { return map[string]string{"twin": fmt.Sprintf("%08x", n)} }

// Two referrers whose digests share the digits that containerd's client
// makes a label of live and die with their subject, both.
func TestReferrersThatShareTwelveDigitsBothLive(t *testing.T) {
	reg := startRegistry(t, registry.Olareg)
	image := pushSmall(t, reg, "app", "v1", "image")
	if os.Getenv("TRANSFER_REFERRERS_TWINS") != "" {
		twins = findTwins(t, reg, image)
		t.Fatalf("var twins = [2]uint32{%#x, %#x}", twins[0], twins[1])
	}
	var referrers []digest.Digest
	for _, n := range twins {
		desc, err := reg.Attach(testContext(t), "app", image.Descriptor, "application/spdx+json", twin(n), []byte("sbom"))
		if err != nil {
			t.Fatal(err)
		}
		referrers = append(referrers, desc.Digest)
	}
	if referrers[0] == referrers[1] || referrers[0].Encoded()[:12] != referrers[1].Encoded()[:12] {
		t.Fatalf("%s and %s are no twins; look for others with TRANSFER_REFERRERS_TWINS=1", referrers[0], referrers[1])
	}
	d := startDaemon(t, active(everything))
	ref := reg.Host + "/app:v1"
	for range 2 { // the second pull finds the labels of the first
		pull(t, d, ref)
		collect(t, d)
		if lost := damaged(t, d, append(referrers, digest.FromString("sbom"))); len(lost) > 0 {
			t.Errorf("lost in a collection: %v", lost)
		}
		if read := ls(t, d, ref); len(read.Referrers) != 2 {
			t.Errorf("%d referrers are listed, want both", len(read.Referrers))
		}
	}
	if _, err := d.Ctr(testContext(t), "images", "rm", "--sync", ref); err != nil {
		t.Fatal(err)
	}
	if have := contents(t, d); len(have) > 0 {
		t.Errorf("content stays: %v", have)
	}
}

// findTwins hashes manifests until two share 48 bits of their digests: a table of
// 26 of these bits holds the other 22 and the number of the manifest.
func findTwins(t *testing.T, reg *registry.Registry, image small) [2]uint32 {
	t.Helper()
	desc, err := reg.Attach(testContext(t), "app", image.Descriptor, "application/spdx+json", twin(0), []byte("sbom"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := []byte(manifestOf(t, reg, "app", desc.Digest))
	at := strings.LastIndex(string(manifest), "00000000")
	table := make([]uint64, 1<<26)
	for n := uint32(1); n < 1<<26; n++ {
		copy(manifest[at:], fmt.Sprintf("%08x", n))
		sum := sha256.Sum256(manifest)
		bits := binary.BigEndian.Uint64(sum[:]) >> 16
		slot, rest := bits>>22, bits&(1<<22-1)
		if other := table[slot]; other != 0 && other>>26 == rest {
			return [2]uint32{uint32(other & (1<<26 - 1)), n}
		}
		table[slot] = rest<<26 | uint64(n)
	}
	t.Fatal("no twins")
	return twins
}
