package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	mib        = 1 << 20
	earlyCalls = 60
)

var (
	sending   = &grpc.StreamDesc{ClientStreams: true}
	receiving = &grpc.StreamDesc{ServerStreams: true}
)

func dial(addr string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(8*mib)))
	return grpc.NewClient("passthrough:///"+addr, options...)
}

func within(seconds int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
}

func clientChecks(addr string) []check {
	conn, err := dial(addr)
	if err != nil {
		return []check{{"dial", func() error { return err }}}
	}
	return []check{
		{"unary", func() error { return checkUnary(conn) }},
		{"unary gzip", func() error { return checkUnary(conn, grpc.UseCompressor(gzip.Name)) }},
		{"upload", func() error { return checkUpload(conn) }},
		{"upload gzip", func() error { return checkUpload(conn, grpc.UseCompressor(gzip.Name)) }},
		{"download", func() error { return checkDownload(conn) }},
		{"early answers", func() error { return checkEarly(conn) }},
		{"status", func() error { return checkStatus(conn) }},
		{"cancel", func() error { return checkCancel(conn) }},
		{"deadline", func() error { return checkDeadline(conn) }},
		{"metadata", func() error { return checkMetadata(conn) }},
		{"keepalive", func() error { return checkKeepalive(addr) }},
	}
}

func invoke(conn *grpc.ClientConn, method string, request []byte, options ...grpc.CallOption) ([]byte, error) {
	ctx, cancel := within(60)
	defer cancel()
	var answer []byte
	err := conn.Invoke(ctx, method, &request, &answer, options...)
	return answer, err
}

func checkUnary(conn *grpc.ClientConn, options ...grpc.CallOption) error {
	for _, size := range []int{0, 1, 16_379, 16_380, 65_536, 3 * mib} {
		request := bytes.Repeat([]byte("a"), size)
		answer, err := invoke(conn, unary, request, options...)
		if err != nil {
			return err
		}
		if !bytes.Equal(answer, request) {
			return fmt.Errorf("%d bytes came back as %d others", size, len(answer))
		}
	}
	return nil
}

func checkUpload(conn *grpc.ClientConn, options ...grpc.CallOption) error {
	piece := bytes.Repeat([]byte("0123456789abcdef"), mib/16)
	hash := sha256.New()
	for range 32 {
		hash.Write(piece)
	}
	ctx, cancel := within(60)
	defer cancel()
	stream, err := conn.NewStream(ctx, sending, upload, options...)
	if err != nil {
		return err
	}
	for range 32 {
		if err := stream.SendMsg(&piece); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var answer []byte
	if err := stream.RecvMsg(&answer); err != nil {
		return err
	}
	if want := hex.EncodeToString(hash.Sum(nil)); string(answer) != want {
		return fmt.Errorf("got %s, want %s", answer, want)
	}
	return nil
}

func checkDownload(conn *grpc.ClientConn) error {
	ctx, cancel := within(60)
	defer cancel()
	stream, err := conn.NewStream(ctx, receiving, download)
	if err != nil {
		return err
	}
	request := []byte("32 1048576")
	if err := stream.SendMsg(&request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for count := 0; ; count++ {
		var message []byte
		err := stream.RecvMsg(&message)
		if errors.Is(err, io.EOF) && count == 32 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d messages: %w", count, err)
		}
		if len(message) != mib {
			return fmt.Errorf("message of %d bytes", len(message))
		}
	}
}

func checkEarly(conn *grpc.ClientConn) error {
	for number := range earlyCalls {
		ctx, cancel := within(60)
		stream, err := conn.NewStream(ctx, sending, early)
		if err != nil {
			cancel()
			return err
		}
		piece := make([]byte, 100_000)
		for range 40 {
			if stream.SendMsg(&piece) != nil {
				break
			}
		}
		var answer []byte
		err = stream.RecvMsg(&answer)
		cancel()
		if err != nil || string(answer) != "stored" {
			return fmt.Errorf("call %d: %q, %v", number, answer, err)
		}
	}
	return nil
}

func checkStatus(conn *grpc.ClientConn) error {
	_, err := invoke(conn, fail, nil)
	// grpc-go reads code and message from grpc-status-details-bin where it is there
	if got := status.Convert(err); got.Code() != codes.NotFound || got.Message() != "é" {
		return fmt.Errorf("got %v", err)
	}
	_, err = invoke(conn, "/t.Test/Nothing", nil)
	if status.Code(err) != codes.Unimplemented {
		return fmt.Errorf("unknown method: %v", err)
	}
	return nil
}

func checkCancel(conn *grpc.ClientConn) error {
	ctx, cancel := within(60)
	stream, err := conn.NewStream(ctx, sending, wait)
	if err != nil {
		cancel()
		return err
	}
	piece := make([]byte, 100_000)
	if err := stream.SendMsg(&piece); err != nil {
		cancel()
		return err
	}
	if _, err := invoke(conn, unary, []byte("it runs")); err != nil {
		cancel()
		return err
	}
	cancel()
	answer, err := invoke(conn, cancelled, nil)
	if err != nil || string(answer) != "yes" {
		return fmt.Errorf("the handler was not cancelled: %q, %v", answer, err)
	}
	return nil
}

func checkDeadline(conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	stream, err := conn.NewStream(ctx, sending, wait)
	if err == nil {
		var answer []byte
		err = stream.RecvMsg(&answer)
	}
	if status.Code(err) != codes.DeadlineExceeded {
		return fmt.Errorf("got %v", err)
	}
	answer, err := invoke(conn, cancelled, nil)
	if err != nil || string(answer) != "yes" {
		return fmt.Errorf("the handler was not cancelled: %q, %v", answer, err)
	}
	return nil
}

func checkMetadata(conn *grpc.ClientConn) error {
	ctx, cancel := within(60)
	defer cancel()
	large, binary := strings.Repeat("m", 16*1024), "\x00\xff\x01 ,é"
	ctx = metadata.AppendToOutgoingContext(ctx, "x-large", large, "x-some-bin", binary)
	request, answer, trailer := []byte("x"), []byte(nil), metadata.MD{}
	if err := conn.Invoke(ctx, unary, &request, &answer, grpc.Trailer(&trailer)); err != nil {
		return err
	}
	if got := trailer.Get("x-large"); len(got) != 1 || got[0] != large {
		return fmt.Errorf("x-large came back %d times", len(got))
	}
	if got := trailer.Get("x-some-bin"); len(got) != 1 || got[0] != binary {
		return fmt.Errorf("x-some-bin came back as %q", got)
	}
	return nil
}

// checkKeepalive pings as often as grpc-go lets a client, with a call open, and finds the connection alive afterwards.
func checkKeepalive(addr string) error {
	conn, err := dial(addr, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, sending, wait)
	if err == nil {
		var answer []byte
		err = stream.RecvMsg(&answer)
	}
	if status.Code(err) != codes.DeadlineExceeded {
		return fmt.Errorf("the call ended with %v", err)
	}
	_, err = invoke(conn, unary, []byte("alive"))
	if _, drained := invoke(conn, cancelled, nil); err == nil {
		err = drained
	}
	return err
}
