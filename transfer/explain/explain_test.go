package explain

import (
	"context"
	"io"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/streaming"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/verdict"
)

// line joins the two ends of one stream, as the daemon's streaming service does.
type line struct{ messages chan typeurl.Any }

func (l *line) Create(context.Context, string) (streaming.Stream, error) { return l, nil }
func (l *line) Get(context.Context, string) (streaming.Stream, error)    { return l, nil }
func (l *line) Close() error                                             { return nil }

func (l *line) Send(m typeurl.Any) error {
	l.messages <- m
	return nil
}

func (l *line) Recv() (typeurl.Any, error) {
	m, ok := <-l.messages
	if !ok {
		return nil, io.EOF
	}
	return m, nil
}

// What a client asks for reaches the daemon, and the answer the client.
func TestMessages(t *testing.T) {
	ctx := t.Context()
	arm := platforms.MustParse("linux/arm64/v8")
	answered := func(client, daemon *answer[Explanation]) {
		t.Helper()
		if err := daemon.Send(&Explanation{Image: "example.com/app:v1", Refused: "no"}); err != nil {
			t.Fatal(err)
		}
		e, err := client.receive(ctx)
		if err != nil || e.Image != "example.com/app:v1" || e.Refused != "no" {
			t.Errorf("the client received %+v, %v", e, err)
		}
	}
	l := &line{make(chan typeurl.Any, 1)}
	asked, received := New(arm), &Destination{}
	message, err := asked.MarshalAny(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := received.UnmarshalAny(ctx, l, message); err != nil || len(received.Platforms()) != 1 || received.Platforms()[0].Architecture != "arm64" {
		t.Errorf("the daemon received %+v, %v", received, err)
	}
	answered(&asked.answer, &received.answer)

	for _, opts := range [][]FetchOpt{nil, {WithPlatforms(arm)}, {WithAllPlatforms()}} {
		asked, received := NewFetch(opts...), &FetchDestination{}
		message, err := asked.MarshalAny(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		if err := received.UnmarshalAny(ctx, l, message); err != nil {
			t.Fatal(err)
		}
		if received.AllPlatforms() != asked.AllPlatforms() || !slices.Equal(formatAll(received.Platforms()), formatAll(asked.Platforms())) {
			t.Errorf("asked was for %+v, received %+v", asked, received)
		}
		answered(&asked.answer, &received.answer)
	}

	for _, asked := range []*VerifyDestination{NewVerify(false), NewVerify(false, arm), NewVerify(true)} {
		received := &VerifyDestination{}
		message, err := asked.MarshalAny(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		if err := received.UnmarshalAny(ctx, l, message); err != nil {
			t.Fatal(err)
		}
		if received.AllPlatforms() != asked.AllPlatforms() || !slices.Equal(formatAll(received.Platforms()), formatAll(asked.Platforms())) {
			t.Errorf("asked was for %+v, received %+v", asked, received)
		}
		if err := received.Send(&Verification{Image: "example.com/app:v1", Verdict: &verdict.Verdict{Mode: "enforce"}}); err != nil {
			t.Fatal(err)
		}
		if v, err := asked.Verification(ctx); err != nil || v.Image != "example.com/app:v1" || v.Mode != "enforce" {
			t.Errorf("the client received %+v, %v", v, err)
		}
	}
}

func TestMessagesThatCannotBeMeant(t *testing.T) {
	l := &line{make(chan typeurl.Any, 1)}
	for name, m := range map[string]*api.FetchDestination{
		"a platform that is none":     {Platforms: []string{"no/such/platform/at/all"}},
		"all platforms and some":      {Platforms: []string{"linux/amd64"}, AllPlatforms: true},
		"a platform with a character": {Platforms: []string{"linux/\x1b"}},
	} {
		message, err := typeurl.MarshalAny(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := (&FetchDestination{}).UnmarshalAny(t.Context(), l, message); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
		message, err = typeurl.MarshalAny(&api.VerifyDestination{Platforms: m.Platforms, AllPlatforms: m.AllPlatforms})
		if err != nil {
			t.Fatal(err)
		}
		if err := (&VerifyDestination{}).UnmarshalAny(t.Context(), l, message); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s, of verify: %v", name, err)
		}
	}
}
