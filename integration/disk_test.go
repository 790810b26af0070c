package integration

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
)

// storeRules are what a rule may say of a referrer that the store cannot take, and
// whether the pull succeeds.
var storeRules = []struct {
	name, rule string
	succeeds   bool
	says       string
}{
	{"warn", rule(`artifact_types = ["sboms"]`, `on_error = "warn"`), true, ""},
	{"fail", rule(`artifact_types = ["sboms"]`, `on_error = "fail"`), false, `on_error = "fail"`},
	{"required", rule(`required = ["sboms"]`), false, "lacks referrers"},
}

// A referrer that the disk has no room for. The rule decides, what was
// written of it is gone, and where there is room again it comes.
func TestDiskFullLeavesNoHalfReferrer(t *testing.T) {
	for _, tc := range storeRules {
		t.Run(tc.name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			image := pushSmall(t, reg, "app", "v1", "image")
			_, sbom := attach(t, reg, "app", image.Descriptor, "application/spdx+json", bytes.Repeat([]byte("sbom"), 2<<20))
			config := active(tc.rule)
			config.Disk = 32 << 20
			d := startDaemon(t, config)
			free := fill(t, d.Root(), 4<<20)
			holdUntilUnpacked(t, d, reg, image, sbom[2])
			wantByRule(t, d, reg.Host+"/app:v1", image.Digest, tc.succeeds, tc.says, "no space left on device")
			free()
			reg.Fail(nil)
			wantMadeGood(t, d, reg.Host+"/app:v1", append(image.content, sbom...))
		})
	}
}

// holdUntilUnpacked keeps a blob back until the image is unpacked, which would fail
// as well if it met the moment in which the blob has filled the disk.
func holdUntilUnpacked(t *testing.T, d *daemon.Daemon, reg *registry.Registry, image small, blob digest.Digest) {
	ctx, config := testContext(t), image.content[1]
	reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/blobs/"+blob.String()) {
			return false
		}
		for ctx.Err() == nil {
			// The label is the last that unpacking writes.
			info, err := d.Client.ContentStore().Info(ctx, config)
			if err == nil && info.Labels["containerd.io/gc.ref.snapshot.overlayfs"] != "" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	})
}

// A content store that has become read-only, likewise. The image itself is
// there already, or else its own pull would fail.
func TestReadOnlyStoreLeavesTheRuleToDecide(t *testing.T) {
	for _, tc := range storeRules {
		t.Run(tc.name, func(t *testing.T) {
			reg := startRegistry(t, registry.Olareg)
			image := pushSmall(t, reg, "app", "v1", "image")
			_, sbom := attach(t, reg, "app", image.Descriptor, "application/spdx+json", []byte("sbom"))
			d := startDaemon(t, active(tc.rule))
			ref := reg.Host + "/app:v1"
			pull(t, d, ref, "--local") // past the plugin
			if _, err := d.Ctr(testContext(t), "images", "tag", ref, "kept:v1"); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Ctr(testContext(t), "images", "rm", ref); err != nil {
				t.Fatal(err)
			}
			thaw, err := d.Freeze()
			if errors.Is(err, daemon.ErrNoMount) {
				t.Skipf("the test makes a directory read-only: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			wantByRule(t, d, ref, image.Digest, tc.succeeds, tc.says, "read-only file system")
			if err := thaw(); err != nil {
				t.Fatal(err)
			}
			wantMadeGood(t, d, ref, append(image.content, sbom...))
		})
	}
}

// wantByRule pulls while the store takes no referrer.
func wantByRule(t *testing.T, d *daemon.Daemon, ref string, subject digest.Digest, succeeds bool, says ...string) {
	t.Helper()
	err := unpackedPull(testContext(t), d.Client, ref, nil)
	if succeeds {
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Status(t.Context(), subject); got != string(labels.Unknown) {
			t.Errorf("status is %q, want unknown", got)
		}
	} else {
		wantError(t, err, says...)
		if _, err := d.Client.ImageService().Get(testContext(t), ref); !errdefs.IsNotFound(err) {
			t.Errorf("an image record exists of a pull that failed: %v", err)
		}
	}
	wantClean(t, d)
}

// wantMadeGood pulls once the store takes referrers again.
func wantMadeGood(t *testing.T, d *daemon.Daemon, ref string, whole []digest.Digest) {
	t.Helper()
	if err := unpackedPull(testContext(t), d.Client, ref, nil); err != nil {
		t.Fatal(err)
	}
	collect(t, d)
	if lost := damaged(t, d, whole); len(lost) > 0 {
		t.Errorf("not stored whole: %v", lost)
	}
	if read := ls(t, d, ref); read.Status != labels.Present || len(read.Referrers) != 1 {
		t.Errorf("status %s, %d referrers, want one that is present", read.Status, len(read.Referrers))
	}
	wantClean(t, d)
}

// Not a byte is left, for the database neither, from a moment within the
// pull on. However that ends, the daemon lives, and the next pull is whole.
func TestDaemonOutlivesAFullDisk(t *testing.T) {
	reg := startRegistry(t, registry.Olareg)
	image := pushSmall(t, reg, "app", "v1", "image")
	_, sbom := attach(t, reg, "app", image.Descriptor, "application/spdx+json", bytes.Repeat([]byte("sbom"), 1<<18))
	for _, at := range []string{"/referrers/", "/manifests/" + sbom[0].String(), "/blobs/" + sbom[2].String()} {
		config := active(everything)
		config.Disk = 32 << 20
		d := startDaemon(t, config)
		var once sync.Once
		free := func() {}
		reg.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, at) {
				once.Do(func() { free = fill(t, d.Root(), 0) })
			}
			return false
		})
		t.Logf("full at %s: %v", at, unpackedPull(testContext(t), d.Client, reg.Host+"/app:v1", nil))
		reg.Fail(nil)
		free()
		left, err := d.Client.LeasesService().List(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range left { // the database could not forget it
			if l.Labels[leaseExpires] == "" {
				t.Errorf("lease %s stays for good", l.ID)
			}
			if err := d.Client.LeasesService().Delete(testContext(t), l); err != nil {
				t.Error(err)
			}
		}
		wantMadeGood(t, d, reg.Host+"/app:v1", append(image.content, sbom...))
		if err := d.Client.ImageService().Delete(testContext(t), reg.Host+"/app:v1"); err != nil {
			t.Error(err)
		}
		collect(t, d)
		if have := contents(t, d); len(have) > 0 {
			t.Errorf("content stays: %v", have)
		}
	}
}

// fill leaves so many bytes of a file system free, until the returned function is
// called.
func fill(t *testing.T, dir string, leave int64) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Error(err)
		return func() {}
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Error(err)
	}
	page := make([]byte, 4096)
	for n := int64(disk.Bavail)*disk.Bsize - leave; n > 0 || leave == 0; n -= int64(len(page)) {
		if _, err := f.Write(page); err != nil { // full
			break
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}
