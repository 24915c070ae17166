package keyprovider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	pb "github.com/containers/ocicrypt/utils/keyprovider"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// DefaultSocket is where the trust agent serves the key provider when nothing else is said.
const DefaultSocket = "/run/trust-agent/keyprovider.sock"

// Unwrap asks the key provider on a socket to open the annotation of a layer. The errors say in words why a key is not given.
func Unwrap(ctx context.Context, socket string, annotation []byte) ([]byte, error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	in, err := json.Marshal(input{Op: opUnwrap, Unwrap: unwrapParams{Annotation: annotation}})
	if err != nil {
		return nil, err
	}
	reply, err := pb.NewKeyProviderServiceClient(conn).UnWrapKey(ctx, &pb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: in})
	if err != nil {
		return nil, words(socket, err)
	}
	var out output
	if err := json.Unmarshal(reply.GetKeyProviderKeyWrapProtocolOutput(), &out); err != nil || len(out.Unwrapped.Options) == 0 {
		return nil, errors.New("the answer of the key provider cannot be read")
	}
	return out.Unwrapped.Options, nil
}

// words takes what a person needs out of an error of gRPC.
func words(socket string, err error) error {
	s := status.Convert(err)
	switch {
	case s.Code() == codes.Unavailable && !fromAgent(s.Message()):
		return fmt.Errorf("the key provider does not answer on %s: does trust-agent run, with imageProvider.socket set? (%s)", socket, s.Message())
	case s.Code() == codes.DeadlineExceeded && !fromAgent(s.Message()):
		return fmt.Errorf("the key provider on %s did not answer in time", socket)
	}
	return errors.New(s.Message())
}

func fromAgent(message string) bool {
	const prefix = "trust-agent: "
	return len(message) > len(prefix) && message[:len(prefix)] == prefix
}
