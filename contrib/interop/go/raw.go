package main

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// rawCodec passes messages through as bytes, so that the checks need no stubs.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("not bytes: %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*message)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("not bytes: %T", v)
	}
	*message = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

const (
	unary     = "/t.Test/Unary"
	upload    = "/t.Test/Upload"
	download  = "/t.Test/Download"
	chat      = "/t.Test/Chat"
	early     = "/t.Test/Early"
	fail      = "/t.Test/Fail"
	wait      = "/t.Test/Wait"
	cancelled = "/t.Test/Cancelled"
)
