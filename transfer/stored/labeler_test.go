package stored_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/storetest"
	"github.com/transfer-referrers/transfer-referrers/transfer/labels"
	"github.com/transfer-referrers/transfer-referrers/transfer/stored"
)

// Many subjects are labeled in few transactions, whose context reads what they wrote; one
// that is not there fails alone.
func TestTieAll(t *testing.T) {
	const subjects = 250
	db := storetest.New(t)
	ctx, store := namespaces.WithNamespace(t.Context(), "test"), db.ContentStore()
	put := func(text string) digest.Digest {
		desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
		if err := content.WriteBlob(ctx, store, text, strings.NewReader(text), desc); err != nil {
			t.Fatal(err)
		}
		return desc.Digest
	}
	referrer := put("referrer")
	transactions := 0
	l := stored.NewLabeler(store)
	l.SetTransaction(func(ctx context.Context, f func(context.Context) error) error {
		transactions++
		return storetest.Transaction(db)(ctx, f)
	})
	missing := digest.FromString("missing")
	all := []stored.Tying{{Subject: missing, Referrers: []digest.Digest{referrer}}, {Subject: missing}}
	for i := range subjects {
		all = append(all, stored.Tying{
			Subject: put(fmt.Sprint("subject ", i)), Referrers: []digest.Digest{referrer},
			More: func(ctx context.Context, existing map[string]string) map[string]string {
				if _, err := store.Info(ctx, referrer); err != nil || len(existing) != 0 {
					t.Errorf("%v, existing %v", err, existing)
				}
				return map[string]string{"more": fmt.Sprint(i)}
			},
		})
	}
	if err := l.TieAll(ctx, all); !errdefs.IsNotFound(err) || strings.Count(err.Error(), missing.String()) == 0 {
		t.Errorf("%v, want that %s is not there", err, missing)
	}
	if transactions != 3 {
		t.Errorf("%d transactions, want 3", transactions)
	}
	for i, tied := range all[2:] {
		info, err := store.Info(ctx, tied.Subject)
		if err != nil {
			t.Fatal(err)
		}
		want := labels.TieLabels(nil, referrer)
		want["more"] = fmt.Sprint(i)
		if !maps.Equal(info.Labels, want) {
			t.Fatalf("labels are %v, want %v", info.Labels, want)
		}
	}
}
