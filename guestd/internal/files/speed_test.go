package files

import (
	"bytes"
	"crypto/rand"
	"io"
	"mime/multipart"
	"net/http"
	"testing"
)

const speedBytes = 64 << 20

func speedContent(b *testing.B) []byte {
	b.Helper()
	content := make([]byte, speedBytes)
	_, _ = rand.Read(content)
	b.SetBytes(speedBytes)
	return content
}

func upload(b *testing.B, url, contentType string, body []byte) {
	b.Helper()
	b.ResetTimer()
	for range b.N {
		response, err := http.Post(url, contentType, bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 200 {
			b.Fatal(response.Status)
		}
	}
}

func BenchmarkMultipartUpload(b *testing.B) {
	bench := newBench(b)
	var body bytes.Buffer
	writer := multipart.NewWriter(&body)
	part, err := writer.CreateFormFile("file", "big")
	if err != nil {
		b.Fatal(err)
	}
	_, _ = part.Write(speedContent(b))
	_ = writer.Close()
	upload(b, bench.url+"/files?path=big", writer.FormDataContentType(), body.Bytes())
}

func BenchmarkOctetUpload(b *testing.B) {
	bench := newBench(b)
	upload(b, bench.url+"/files?path=big", "application/octet-stream", speedContent(b))
}

func BenchmarkDownload(b *testing.B) {
	bench := newBench(b)
	write(b, bench.home+"/big", string(speedContent(b)))
	block := make([]byte, 1<<20)
	b.ResetTimer()
	for range b.N {
		request, err := http.NewRequest("GET", bench.url+"/files?path=big", nil)
		if err != nil {
			b.Fatal(err)
		}
		request.Header.Set("Accept-Encoding", "gzip, deflate") // as the clients do
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, response.Body, block)
		response.Body.Close()
		if err != nil || n != speedBytes {
			b.Fatal(n, err)
		}
	}
}
