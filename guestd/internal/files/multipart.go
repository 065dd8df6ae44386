package files

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
)

const partName = "file"

// takeParts stages each part named "file". The destination is path, or else the part's
// own file name with its directories, which multipart.Part.FileName would cut off. The decoder
// takes small steps, so content should be buffered.
func (b *batch) takeParts(content io.Reader, boundary, path string) error {
	if boundary == "" || len(boundary) > 70 {
		return invalid("cannot read the multipart body: its boundary is missing or longer than 70 characters")
	}
	reader := multipart.NewReader(content, boundary)
	for count := 0; ; count++ {
		part, err := reader.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return partFault(err)
		}
		if count == maxParts {
			return invalid("cannot take more than %d parts in one request; send several", maxParts)
		}
		name, filename, err := disposition(part.Header.Get("Content-Disposition"))
		if err != nil {
			return err
		}
		if name != partName {
			continue
		}
		destination := path
		if destination == "" {
			destination = filename
		}
		if destination == "" {
			return invalid("cannot tell where to write: a part has no file name and there is no query parameter 'path'")
		}
		if err := b.take(partReader{part}, destination); err != nil {
			return err
		}
	}
	if len(b.staged) == 0 {
		return invalid("cannot find a part named '%s' in the request", partName)
	}
	return nil
}

// disposition reads the two names of a part.
func disposition(header string) (name, filename string, err error) {
	kind, params, err := mime.ParseMediaType(header)
	if err != nil || kind != "form-data" {
		return "", "", invalid("cannot read the Content-Disposition of a part; it must be form-data with a name")
	}
	return params["name"], params["filename"], nil
}

// partReader turns what the decoder says about a broken body into a fault of the client.
type partReader struct{ part *multipart.Part }

func (p partReader) Read(buf []byte) (int, error) {
	n, err := p.part.Read(buf)
	if err != nil && !errors.Is(err, io.EOF) {
		err = partFault(err)
	}
	return n, err
}

func partFault(err error) error {
	var known *fault
	if errors.As(err, &known) {
		return known
	}
	return invalid("cannot read the multipart body: %s", err)
}
