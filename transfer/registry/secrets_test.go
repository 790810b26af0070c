package registry

import (
	"net/url"
	"strings"
	"testing"

	"github.com/transfer-referrers/transfer-referrers/transfer/internal/hostile"
)

// TestSignedAddressesAreNotTold has redirects to storage whose address is its own
// password, and that fail. Errors end in logs and in statuses that others read.
func TestSignedAddressesAreNotTold(t *testing.T) {
	const secret = "topsecret"
	const signed = "/x?X-Amz-Expires=600&X-Amz-Signature=" + secret
	const dead = "http://" + refusing
	plain, secure := hostile.New(t), hostile.NewTLS(t)
	plain.On("/403", hostile.Status(403))
	plain.On("/drop", hostile.Answer{Drop: true})
	plain.On("/hang", hostile.Answer{Hang: true})
	plain.On("/part", hostile.Answer{Body: []byte("a"), Announce: int64(len(blobText))})
	plain.On("/stall", hostile.Answer{Body: []byte("a"), Announce: int64(len(blobText)), Stall: true})
	plain.On("/zstd", hostile.Answer{Body: []byte(blobText)}.With("Content-Encoding", "zstd"))
	plain.On("/loop", redirect("/loop?X-Amz-Signature="+secret))
	to := func(path string) string { return plain.URL() + path + strings.TrimPrefix(signed, "/x") }
	for _, tc := range []struct {
		name string
		from *hostile.Server // nil: plain
		to   string
	}{
		{"storage that refuses connections", nil, dead + signed},
		{"storage of no known name", nil, "http://nowhere.test" + signed},
		{"storage that has the secret as a password", nil, strings.Replace(dead, "://", "://user:"+secret+"@", 1) + "/x"},
		{"storage that forbids", nil, to("/403")},
		{"storage that hangs", nil, to("/hang")},
		{"storage that drops the connection", nil, to("/drop")},
		{"storage that breaks off", nil, to("/part")},
		{"storage that stops", nil, to("/stall")},
		{"storage that compresses", nil, to("/zstd")},
		{"storage that redirects for ever", nil, to("/loop")},
		{"refused: from https to http", secure, to("/403")},
		{"refused: another scheme", nil, "ftp://127.0.0.1" + signed},
		{"refused: metadata service", nil, "http://169.254.169.254" + signed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from := tc.from
			if from == nil {
				from = hostile.New(t)
			}
			manifests, blobs := "/v2/test/app/manifests/"+layer().Digest.String(), "/v2/test/app/blobs/"+layer().Digest.String()
			from.On(manifests, redirect(tc.to))
			from.On(blobs, redirect(tc.to))
			limits := quick
			limits.Request, limits.Stall = short, short
			host := from.RegistryHost(pullResolve)
			transport := from.Transport()
			transport.DialContext = dialNumbers
			host.Client.Transport = transport
			r := newRepository(t, from.Host(), limits, host)
			h := r.Hosts(pull)[0]

			a, err := r.Get(t.Context(), h, &url.URL{Scheme: h.Scheme, Host: h.Host, Path: manifests}, "*/*")
			if err == nil && a.Code != 403 {
				t.Errorf("Get: code %d, want an error", a.Code)
			}
			_, manifestErr := r.Manifest(t.Context(), descriptor(blobText))
			_, _, blobErr := blob(t, r, layer())
			if manifestErr == nil || blobErr == nil {
				t.Errorf("no error: %v, %v", manifestErr, blobErr)
			}
			for _, err := range []error{err, manifestErr, blobErr, h.Down()} {
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("tells the secret: %v", err)
				}
			}
		})
	}
}
