package integration

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/transfer-referrers/transfer-referrers/integration/daemon"
	"github.com/transfer-referrers/transfer-referrers/integration/fixture"
	"github.com/transfer-referrers/transfer-referrers/integration/registry"
)

// spanReceiver keeps what a daemon exports by OTLP over HTTP.
type spanReceiver struct {
	server *httptest.Server
	mu     sync.Mutex
	spans  []*trace.Span
}

func startSpanReceiver(t *testing.T) *spanReceiver {
	r := &spanReceiver{}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		data, err := io.ReadAll(req.Body)
		var message collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(data, &message)
		}
		if err != nil {
			t.Error(err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range message.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				r.spans = append(r.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(r.server.Close)
	return r
}

// env makes a daemon export to the receiver, soon after a span ends.
func (r *spanReceiver) env() []string {
	return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.server.URL, "OTEL_BSP_SCHEDULE_DELAY=50"}
}

// named returns the spans that have the name, those of one trace unless it is nil.
func (r *spanReceiver) named(traceID []byte, name string) []*trace.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*trace.Span
	for _, s := range r.spans {
		if s.Name == name && (traceID == nil || slices.Equal(s.TraceId, traceID)) {
			out = append(out, s)
		}
	}
	return out
}

const transferSpan = "containerd.services.transfer.v1.Transfer/Transfer"

// pulled waits for the span of the nth transfer. It ends after those beneath it,
// which are exported in the order of their ends: then they are there as well.
func (r *spanReceiver) pulled(t *testing.T, n int) *trace.Span {
	t.Helper()
	ctx := testContext(t)
	for {
		if spans := r.named(nil, transferSpan); len(spans) == n {
			return spans[n-1]
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the span %s did not come", transferSpan)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func attribute(s *trace.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// The spans of a pull's referrers hang beneath the pull's own, and those that
// failed say so.
func TestSpans(t *testing.T) {
	f := loadFixture(t)
	reg := startRegistry(t, registry.Olareg)
	wholeFixture(f, t, reg)
	receiver := startSpanReceiver(t)
	d := startDaemon(t, daemon.Config{Disabled: daemon.Active, Plugin: rule(`artifact_types = ["signatures", "sboms"]`, "depth = 1"), Env: receiver.env()})
	image := reg.Host + "/app:v1"
	index, amd64 := f.Get(fixture.Image).Digest.String(), f.Get(fixture.AMD64).Digest.String()
	notation := f.Get(fixture.Notation).Digest.String()

	pull(t, d, image)
	of := receiver.pulled(t, 1)
	gathers := receiver.named(of.TraceId, "transfer.referrers.Gather")
	if len(gathers) != 1 {
		t.Fatalf("the pull has %d gathers in its trace, want 1", len(gathers))
	}
	gather := gathers[0]
	if !slices.Equal(gather.ParentSpanId, of.SpanId) {
		t.Errorf("the gather's parent is span %s, want the pull's", hex.EncodeToString(gather.ParentSpanId))
	}
	if got := attribute(gather, "image.ref"); got != image {
		t.Errorf("the gather is of image %q", got)
	}
	wantSpans(t, receiver, gather, "List", "referrers.subject", index, amd64)
	wantSpans(t, receiver, gather, "Take", "referrers.digest",
		f.Get(fixture.CosignSignature).Digest.String(), notation, f.Get(fixture.SBOM).Digest.String())
	wantSpans(t, receiver, gather, "CosignTag", "referrers.subject", amd64) // .sig; the index has a sigstore bundle
	for _, s := range receiver.named(of.TraceId, "transfer.referrers.Take") {
		if set := attribute(s, "referrers.set"); set != "signatures" && set != "sboms" {
			t.Errorf("the referrer %s is of set %q", attribute(s, "referrers.digest"), set)
		}
	}
	for _, name := range []string{"Gather", "List", "Take", "CosignTag"} {
		for _, s := range receiver.named(of.TraceId, "transfer.referrers."+name) {
			if s.Status.GetCode() == trace.Status_STATUS_CODE_ERROR {
				t.Errorf("span %s failed: %s", s.Name, s.Status.Message)
			}
			for _, a := range s.Attributes {
				if !strings.Contains(readDoc(t, "metrics.md"), "`"+a.Key+"`") {
					t.Errorf("attribute %s of span %s is not documented", a.Key, s.Name)
				}
			}
		}
	}

	// A listing that fails, and a referrer that cannot be fetched. What is
	// stored is not fetched again, so the image goes first.
	if _, err := d.Ctr(testContext(t), "images", "rm", "--sync", image); err != nil {
		t.Fatal(err)
	}
	signature := f.Content(fixture.Notation)[2].String()
	reg.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/referrers/"+amd64) && !strings.HasSuffix(r.URL.Path, "/blobs/"+signature) {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	pull(t, d, image)
	of = receiver.pulled(t, 2)
	wantFailed(t, receiver.named(of.TraceId, "transfer.referrers.List"), "referrers.subject", amd64, "HTTP 403")
	wantFailed(t, receiver.named(of.TraceId, "transfer.referrers.Take"), "referrers.digest", notation, signature)
	wantFailed(t, receiver.named(of.TraceId, "transfer.referrers.Gather"), "image.ref", image, signature)
}

// wantSpans fails where the spans of the name are not those of the attribute's
// values, one each, beneath the parent.
func wantSpans(t *testing.T, r *spanReceiver, parent *trace.Span, name, key string, want ...string) {
	t.Helper()
	var got []string
	for _, s := range r.named(parent.TraceId, "transfer.referrers."+name) {
		got = append(got, attribute(s, key))
		if !slices.Equal(s.ParentSpanId, parent.SpanId) {
			t.Errorf("span %s of %s has another parent than %s", name, attribute(s, key), parent.Name)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("spans %s are of\n %q, want\n %q", name, got, want)
	}
}

// wantFailed fails unless of the spans exactly that with the attribute has an
// error, which says the text.
func wantFailed(t *testing.T, spans []*trace.Span, key, value, says string) {
	t.Helper()
	found := false
	for _, s := range spans {
		failed := s.Status.GetCode() == trace.Status_STATUS_CODE_ERROR
		this := attribute(s, key) == value
		found = found || this
		if failed != this {
			t.Errorf("span %s of %s: failed is %v, want %v", s.Name, attribute(s, key), failed, this)
		}
		if this && (!strings.Contains(s.Status.Message, says) || len(s.Status.Message) > 310) {
			t.Errorf("span %s does not say %q in short: %q", s.Name, says, s.Status.Message)
		}
	}
	if !found {
		t.Errorf("there is no span of %s", value)
	}
}
