package signature

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

var now = time.Unix(1_700_000_000, 500_000_000)

// The vectors were made with the Python client's own function.
func TestVectors(t *testing.T) {
	expiry := int64(1_700_000_100)
	for _, c := range []struct {
		claim Claim
		token string
		want  string
	}{
		{Claim{Path: "/home/user/a b.txt", Operation: Read, Username: "user"}, "tok", "v1_PDhK3P0/VVi45RSAUklPxX4trWseAV9dTwwq5slGI3g"},
		{Claim{Path: "naïve.txt", Operation: Write, Expiration: &expiry}, "tok", "v1_/8PhhtjhGVBJtqK9v/ct10UrnVT9squzxel8kwZYhSM"},
		{Claim{Path: "/x", Operation: Read}, "s3cr3t", "v1_6iMNsy1gY0LDF9Ieb+CFy9lGhi1/uyltEmqOaDqUcMM"},
	} {
		if got := Sign(c.claim, c.token); got != c.want {
			t.Errorf("%+v: %s, want %s", c.claim, got, c.want)
		}
	}
}

func query(claim Claim, token string) url.Values {
	values := url.Values{"path": {claim.Path}, "signature": {Sign(claim, token)}}
	if claim.Username != "" {
		values.Set("username", claim.Username)
	}
	if claim.Expiration != nil {
		values.Set("signature_expiration", strconv.FormatInt(*claim.Expiration, 10))
	}
	return values
}

func TestCheck(t *testing.T) {
	at := func(offset int64) *int64 { seconds := now.Unix() + offset; return &seconds }
	change := func(values url.Values, name, value string) url.Values { values.Set(name, value); return values }
	drop := func(values url.Values, name string) url.Values { values.Del(name); return values }
	read := Claim{Path: "/a:b", Operation: Read, Username: "user"}
	timed := Claim{Path: "/a", Operation: Read, Expiration: at(5)}
	for _, c := range []struct {
		name  string
		query url.Values
		want  error
	}{
		{"good", query(read, "tok"), nil},
		{"good for now", query(timed, "tok"), nil},
		{"good in its last second", query(Claim{Path: "/a", Operation: Read, Expiration: at(0)}, "tok"), nil},
		{"expired", query(Claim{Path: "/a", Operation: Read, Expiration: at(-1)}, "tok"), ErrExpired},
		{"missing", url.Values{"path": {"/a"}}, ErrMissing},
		{"empty", change(query(read, "tok"), "signature", ""), ErrInvalid},
		{"other token", query(read, "other"), ErrInvalid},
		{"other path", change(query(read, "tok"), "path", "/b"), ErrInvalid},
		{"other user", change(query(read, "tok"), "username", "root"), ErrInvalid},
		{"no user", drop(query(read, "tok"), "username"), ErrInvalid},
		{"to write", query(Claim{Path: "/a:b", Operation: Write, Username: "user"}, "tok"), ErrInvalid},
		{"expiry taken off", drop(query(timed, "tok"), "signature_expiration"), ErrInvalid},
		{"expiry put off", change(query(timed, "tok"), "signature_expiration", "99999999999"), ErrInvalid},
		{"expiry put on", change(query(read, "tok"), "signature_expiration", "99999999999"), ErrInvalid},
		{"expiry no number", change(query(timed, "tok"), "signature_expiration", "soon"), ErrInvalid},
		{"padded", change(query(read, "tok"), "signature", Sign(read, "tok")+"="), ErrInvalid},
		{"long expired and wrong", change(query(read, "tok"), "signature_expiration", "1"), ErrInvalid},
	} {
		if got := Check(c.query, Read, "tok", now); !errors.Is(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw, token string) {
		values, _ := url.ParseQuery(raw)
		if err := Check(values, Read, token, now); err == nil && !strings.HasPrefix(values.Get("signature"), "v1_") {
			t.Fatalf("%q was accepted", raw)
		}
	})
}
