package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// CASResource is what Chainloop's client encodes into a resource name.
type CASResource struct {
	FileName string
	Digest   string
	Size     int64
}

func resourceName(fileName, digest string) (string, error) {
	var out bytes.Buffer
	encoder := base64.NewEncoder(base64.StdEncoding, &out)
	if err := gob.NewEncoder(encoder).Encode(&CASResource{FileName: fileName, Digest: digest}); err != nil {
		return "", err
	}
	if err := encoder.Close(); err != nil {
		return "", err
	}
	return out.String(), nil
}

func authorized(token string) (context.Context, context.CancelFunc) {
	ctx, cancel := within(120)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), cancel
}

func byteStreamChecks(addr, up, down string) []check {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return []check{{"dial", func() error { return err }}}
	}
	client := bytestream.NewByteStreamClient(conn)
	large := make([]byte, 24*mib+7)
	if _, err := rand.Read(large); err != nil {
		return []check{{"random", func() error { return err }}}
	}
	roundTrip := func(name string, data []byte) func() error {
		return func() error {
			if err := store(client, up, name, data, digestOf(data)); err != nil {
				return err
			}
			return fetch(client, down, data)
		}
	}
	return []check{
		{"large", roundTrip("large.bin", large)},
		{"again", roundTrip("large.bin", large)},
		{"empty", roundTrip("empty", nil)},
		{"one byte", roundTrip("señal-日本語-🚀.tar.gz", []byte("x"))},
		{"wrong digest", func() error {
			return wantCode(codes.InvalidArgument, store(client, up, "w", []byte("w"), digestOf([]byte("v"))))
		}},
		{"wrong role", func() error {
			return wantCode(codes.Unauthenticated, store(client, down, "w", []byte("w"), digestOf([]byte("w"))))
		}},
		{"unknown", func() error { return wantCode(codes.NotFound, fetch(client, down, []byte("never stored"))) }},
	}
}

func wantCode(want codes.Code, err error) error {
	if status.Code(err) != want {
		return fmt.Errorf("got %v, want %v", err, want)
	}
	return nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func store(client bytestream.ByteStreamClient, token, name string, data []byte, digest string) error {
	resource, err := resourceName(name, digest)
	if err != nil {
		return err
	}
	ctx, cancel := authorized(token)
	defer cancel()
	stream, err := client.Write(ctx)
	if err != nil {
		return err
	}
	for rest := data; len(rest) > 0; {
		size := min(mib, len(rest))
		if err := stream.Send(&bytestream.WriteRequest{ResourceName: resource, Data: rest[:size]}); errors.Is(err, io.EOF) {
			break // answered already
		} else if err != nil {
			return err
		}
		rest = rest[size:]
	}
	if err := stream.Send(&bytestream.WriteRequest{ResourceName: resource, FinishWrite: true}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if answer.CommittedSize != int64(len(data)) {
		return fmt.Errorf("committed %d of %d bytes", answer.CommittedSize, len(data))
	}
	return nil
}

func fetch(client bytestream.ByteStreamClient, token string, want []byte) error {
	ctx, cancel := authorized(token)
	defer cancel()
	stream, err := client.Read(ctx, &bytestream.ReadRequest{ResourceName: digestOf(want)})
	if err != nil {
		return err
	}
	var got bytes.Buffer
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		got.Write(message.Data)
	}
	if !bytes.Equal(got.Bytes(), want) {
		return fmt.Errorf("%d other bytes came back", got.Len())
	}
	return nil
}
