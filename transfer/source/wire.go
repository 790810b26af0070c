package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/core/streaming"
	tstreaming "github.com/containerd/containerd/v2/core/transfer/streaming"
	"github.com/containerd/containerd/v2/pkg/httpdbg"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"

	api "github.com/transfer-referrers/transfer-referrers/api/transferreferrers/v1"
	"github.com/transfer-referrers/transfer-referrers/transfer/registry"
)

// MarshalAny writes the message that the daemon reads. The registry's part is
// containerd's own, streams for credentials and debugging included; without a
// selection it is all, so that a daemon without the plugin reads it too.
func (s *Source) MarshalAny(ctx context.Context, sc streaming.StreamCreator) (typeurl.Any, error) {
	if s.client == nil {
		return nil, fmt.Errorf("source %s was received, not made by New: %w", s.Image(), errdefs.ErrFailedPrecondition)
	}
	r, err := s.client.MarshalAny(ctx, sc)
	if err != nil || s.selection == nil {
		return r, err
	}
	return typeurl.MarshalAny(&api.Source{
		Registry:  &anypb.Any{TypeUrl: r.GetTypeUrl(), Value: r.GetValue()},
		Selection: s.selection,
	})
}

// UnmarshalAny reads either a Source message or containerd's OCIRegistry. The
// context is that of the transfer: streams end with it.
func (s *Source) UnmarshalAny(ctx context.Context, sg streaming.StreamGetter, any typeurl.Any) error {
	if typeurl.Is(any, &api.Source{}) {
		var m api.Source
		if err := typeurl.UnmarshalTo(any, &m); err != nil {
			return err
		}
		if m.Registry == nil {
			return fmt.Errorf("source message without a registry: %w", errdefs.ErrInvalidArgument)
		}
		s.selection, any = m.Selection, m.Registry
	}
	s.message = &transfertypes.OCIRegistry{}
	if err := typeurl.UnmarshalTo(any, s.message); err != nil {
		return err
	}
	options, err := s.hostOptions(ctx, sg)
	if err != nil {
		return err
	}
	s.registry = registry.NewClient(ctx, options)
	s.header = http.Header{}
	for k, v := range s.message.GetResolver().GetHeaders() {
		s.header.Add(k, v)
	}
	s.resolver = docker.NewResolver(docker.ResolverOptions{Hosts: s.registry.Hosts, Headers: s.header})
	return nil
}

// hostOptions turns the message's resolver into host options, as containerd's
// registry package does.
func (s *Source) hostOptions(ctx context.Context, sg streaming.StreamGetter) (config.HostOptions, error) {
	var options config.HostOptions
	r := s.message.GetResolver()
	options.DefaultScheme = r.GetDefaultScheme()
	if dir := r.GetHostDir(); dir != "" {
		options.HostDir = config.HostDirFromRoot(dir)
	}
	if id := r.GetAuthStream(); id != "" {
		stream, err := sg.Get(ctx, id)
		if err != nil {
			return options, fmt.Errorf("credentials stream: %w", err)
		}
		s.askCredentials = (&credentials{stream: stream, reference: s.message.Reference}).get
		options.Credentials = s.askCredentials
	}
	if mode := r.GetHttpDebug(); mode != transfertypes.HTTPDebug_DISABLED {
		out, err := debugWriter(ctx, sg, r.GetLogsStream())
		if err != nil {
			return options, err
		}
		options.UpdateClient = func(client *http.Client) error {
			if mode != transfertypes.HTTPDebug_TRACE {
				httpdbg.DumpRequests(ctx, client, out)
			}
			if mode != transfertypes.HTTPDebug_DEBUG {
				httpdbg.DumpTraces(ctx, client)
			}
			return nil
		}
	}
	return options, nil
}

// debugWriter writes to the client's stream, or to the daemon's log where the
// client sent none. Requests of the image and of its referrers run at the same
// time, and a stream takes one writer.
func debugWriter(ctx context.Context, sg streaming.StreamGetter, id string) (io.Writer, error) {
	var out io.WriteCloser
	if id != "" {
		stream, err := sg.Get(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("stream for HTTP debug logs: %w", err)
		}
		out = tstreaming.WriteByteStream(ctx, stream)
	} else {
		out = log.G(ctx).Writer()
	}
	w := &lockedWriter{w: out}
	context.AfterFunc(ctx, func() {
		if err := w.close(); err != nil && !errors.Is(err, io.EOF) {
			log.G(ctx).WithError(err).Debug("close HTTP debug logs")
		}
	})
	return w, nil
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.WriteCloser
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

func (w *lockedWriter) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Close()
}

// credentials asks the client for them, over its stream.
type credentials struct {
	mu        sync.Mutex
	stream    streaming.Stream
	reference string
}

// get returns user name and secret for a host; a secret without a user name is a
// refresh token (docker.ResolverOptions.Credentials).
func (c *credentials) get(host string) (string, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	request, err := typeurl.MarshalAny(&transfertypes.AuthRequest{Host: host, Reference: c.reference})
	if err != nil {
		return "", "", err
	}
	if err := c.stream.Send(request); err != nil {
		return "", "", fmt.Errorf("ask the client for credentials: %w", err)
	}
	answer, err := c.stream.Recv()
	if err != nil {
		return "", "", fmt.Errorf("receive the client's credentials: %w", err)
	}
	var response transfertypes.AuthResponse
	if err := typeurl.UnmarshalTo(answer, &response); err != nil {
		return "", "", err
	}
	switch response.AuthType {
	case transfertypes.AuthType_CREDENTIALS:
		return response.Username, response.Secret, nil
	case transfertypes.AuthType_REFRESH:
		return "", response.Secret, nil
	}
	return "", "", nil // a header, which containerd's authorizer does not take either
}
