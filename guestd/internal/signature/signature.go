// Package signature makes and checks the v1 signatures of file URLs.
//
// A signature stands in for the access token in a URL that is handed to somebody
// else: it covers one path, one operation, one user and, if wanted, an expiry.
package signature

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Operation is what the bearer of a signed URL may do.
type Operation string

const (
	Read  Operation = "read"
	Write Operation = "write"
)

// The texts are part of the wire contract: clients compare them.
var (
	ErrMissing = errors.New("missing signature query parameter")
	ErrInvalid = errors.New("invalid signature")
	ErrExpired = errors.New("signature is already expired")
)

const prefix = "v1_"

// Claim is what a signature covers. Username is empty when the URL names none.
type Claim struct {
	Path       string
	Operation  Operation
	Username   string
	Expiration *int64 // Unix seconds; nil means that the URL never expires
}

// Sign returns the text that goes into the query parameter "signature".
func Sign(claim Claim, token string) string {
	var raw strings.Builder
	raw.WriteString(claim.Path)
	raw.WriteByte(':')
	raw.WriteString(string(claim.Operation))
	raw.WriteByte(':')
	raw.WriteString(claim.Username)
	raw.WriteByte(':')
	raw.WriteString(token)
	if claim.Expiration != nil {
		raw.WriteByte(':')
		raw.WriteString(strconv.FormatInt(*claim.Expiration, 10))
	}
	digest := sha256.Sum256([]byte(raw.String()))
	return prefix + base64.RawStdEncoding.EncodeToString(digest[:])
}

// Check judges the query of a request for a file. The signature is compared before
// the expiry, so that only a URL that was once good is told that it has expired.
func Check(query url.Values, operation Operation, token string, now time.Time) error {
	if !query.Has("signature") {
		return ErrMissing
	}
	claim := Claim{Path: query.Get("path"), Operation: operation, Username: query.Get("username")}
	if text := query.Get("signature_expiration"); text != "" {
		expiration, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return ErrInvalid
		}
		claim.Expiration = &expiration
	}
	want := Sign(claim, token)
	if subtle.ConstantTimeCompare([]byte(want), []byte(query.Get("signature"))) != 1 {
		return ErrInvalid
	}
	if claim.Expiration != nil && *claim.Expiration < now.Unix() {
		return ErrExpired
	}
	return nil
}
