package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // registered by its import
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// cancels tells how a Wait ended to whoever asks Cancelled.
var cancels = make(chan struct{}, 1000)

func serve() int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxRecvMsgSize(8*mib), grpc.UnknownServiceHandler(handle))
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	switch method {
	case upload:
		return serveUpload(stream)
	case chat:
		return serveChat(stream)
	case early:
		answer := []byte("stored")
		return stream.SendMsg(&answer)
	case fail:
		return status.Error(codes.NotFound, "né %\n x")
	case wait:
		<-stream.Context().Done()
		cancels <- struct{}{}
		return stream.Context().Err()
	}
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	switch method {
	case unary:
		if in, ok := metadata.FromIncomingContext(stream.Context()); ok {
			out := metadata.MD{}
			for key, values := range in {
				if strings.HasPrefix(key, "x-") {
					out.Append(key, values...)
				}
			}
			stream.SetTrailer(out)
		}
		return stream.SendMsg(&request)
	case download:
		return serveDownload(stream, string(request))
	case cancelled:
		<-cancels
		answer := []byte("yes")
		return stream.SendMsg(&answer)
	}
	return status.Error(codes.Unimplemented, "unknown method")
}

func serveUpload(stream grpc.ServerStream) error {
	hash := sha256.New()
	for {
		var message []byte
		err := stream.RecvMsg(&message)
		if errors.Is(err, io.EOF) {
			answer := []byte(hex.EncodeToString(hash.Sum(nil)))
			return stream.SendMsg(&answer)
		}
		if err != nil {
			return err
		}
		hash.Write(message)
	}
}

func serveChat(stream grpc.ServerStream) error {
	for {
		var message []byte
		err := stream.RecvMsg(&message)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}

func serveDownload(stream grpc.ServerStream, request string) error {
	var count, size int
	if _, err := fmt.Sscan(request, &count, &size); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	message := make([]byte, size)
	for index := range message {
		message[index] = byte(index)
	}
	for range count {
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
	return nil
}
