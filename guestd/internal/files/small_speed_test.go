package files

import (
	"bytes"
	"context"
	"mime/multipart"
	"testing"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem"
)

func BenchmarkSmallMultipartUpload(b *testing.B) {
	bench := newBench(b)
	var body bytes.Buffer
	writer := multipart.NewWriter(&body)
	part, err := writer.CreateFormFile("file", "small")
	if err != nil {
		b.Fatal(err)
	}
	_, _ = part.Write([]byte("a few bytes"))
	_ = writer.Close()
	b.ReportAllocs()
	upload(b, bench.url+"/files?path=small", writer.FormDataContentType(), body.Bytes())
}

func BenchmarkStat(b *testing.B) {
	bench := newBench(b)
	request := connect.NewRequest(&filesystem.StatRequest{Path: "~"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bench.rpc.Stat(context.Background(), request); err != nil {
			b.Fatal(err)
		}
	}
}
