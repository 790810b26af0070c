// Package service is the gRPC Transfer service that replaces containerd's
// own. It does what that does, and keeps what that loses: an image source in a
// registry with all that its client sent (see package source).
package service

import (
	"context"

	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/containerd/v2/core/streaming"
	"github.com/containerd/containerd/v2/core/transfer"
	tplugins "github.com/containerd/containerd/v2/core/transfer/plugins"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/transfer-referrers/transfer-referrers/transfer/archive"
	"github.com/transfer-referrers/transfer-referrers/transfer/source"
)

// Service serves containerd.services.transfer.v1.Transfer.
type Service struct {
	transferrer transfer.Transferrer
	streams     streaming.StreamManager
	transferapi.UnimplementedTransferServer
}

// New returns a service that hands all transfers to the transferrer.
func New(transferrer transfer.Transferrer, streams streaming.StreamManager) *Service {
	return &Service{transferrer: transferrer, streams: streams}
}

// Register adds the service to containerd's gRPC server.
func (s *Service) Register(server *grpc.Server) error {
	transferapi.RegisterTransferServer(server, s)
	return nil
}

// Transfer implements the service. Errors of errdefs become their gRPC codes
// here, and nowhere else.
func (s *Service) Transfer(ctx context.Context, req *transferapi.TransferRequest) (*emptypb.Empty, error) {
	if err := s.transfer(ctx, req); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &emptypb.Empty{}, nil
}

func (s *Service) transfer(ctx context.Context, req *transferapi.TransferRequest) error {
	var opts []transfer.Opt
	if id := req.GetOptions().GetProgressStream(); id != "" {
		stream, err := s.streams.Get(ctx, id)
		if err != nil {
			return err
		}
		defer stream.Close()
		opts = append(opts, transfer.WithProgress(sendProgress(ctx, stream)))
	}
	src, err := s.receive(ctx, req.Source)
	if err != nil {
		return err
	}
	dst, err := s.receive(ctx, req.Destination)
	if err != nil {
		return err
	}
	return s.transferrer.Transfer(ctx, src, dst, opts...)
}

// receive makes the object that a message stands for. Both ends may be in a
// registry: pulls come from one and pushes go to one. Those that can carry
// referrers are this project's; to any other transferrer they are what
// containerd's own would be.
func (s *Service) receive(ctx context.Context, message typeurl.Any) (any, error) {
	if typeurl.Is(message, &transfertypes.OCIRegistry{}) {
		src := &source.Source{}
		return src, src.UnmarshalAny(ctx, s.streams, message)
	}
	if typeurl.Is(message, &transfertypes.ImageExportStream{}) {
		dst := &archive.Stream{}
		return dst, dst.UnmarshalAny(ctx, s.streams, message)
	}
	object, err := tplugins.ResolveType(message)
	if errdefs.IsNotFound(err) {
		return typeurl.UnmarshalAny(message)
	}
	if err != nil {
		return nil, err
	}
	if u, ok := object.(interface {
		UnmarshalAny(context.Context, streaming.StreamGetter, typeurl.Any) error
	}); ok {
		return object, u.UnmarshalAny(ctx, s.streams, message)
	}
	return object, typeurl.UnmarshalTo(message, object)
}

// sendProgress sends progress to the client; a client that has gone is no reason
// to fail its transfer.
func sendProgress(ctx context.Context, stream streaming.Stream) transfer.ProgressFunc {
	return func(p transfer.Progress) {
		message := &transfertypes.Progress{
			Event:    p.Event,
			Name:     p.Name,
			Parents:  p.Parents,
			Progress: p.Progress,
			Total:    p.Total,
		}
		if p.Desc != nil {
			message.Desc = oci.DescriptorToProto(*p.Desc)
		}
		a, err := typeurl.MarshalAny(message)
		if err == nil {
			err = stream.Send(a)
		}
		if err != nil {
			log.G(ctx).WithError(err).WithField("event", p.Event).WithField("name", p.Name).Warn("progress not sent")
		}
	}
}
