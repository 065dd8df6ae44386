package watch

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEventOrderWithinOneKernelEvent(t *testing.T) {
	var got []string
	for _, kind := range eventTypes(interest, nil) {
		got = append(got, strings.TrimPrefix(kind.String(), "EVENT_TYPE_"))
	}
	if strings.Join(got, " ") != "CREATE RENAME CHMOD WRITE REMOVE" {
		t.Errorf("order %v", got)
	}
}

func TestKeepaliveHeader(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": defaultKeepalive, "50": 50 * time.Second, "0": defaultKeepalive, "-3": defaultKeepalive,
		"x": defaultKeepalive, "99999999999999999999": defaultKeepalive, "999999999": maxKeepalive,
	} {
		if got := keepalive(http.Header{"Keepalive-Ping-Interval": {value}}); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestHiddenNames(t *testing.T) {
	for _, overwrites := range []bool{true, false} {
		for _, empty := range []bool{true, false} {
			o, e, ok := parseHidden(HiddenName(overwrites, empty))
			if !ok || o != overwrites || e != empty {
				t.Errorf("%v %v: %v %v %v", overwrites, empty, o, e, ok)
			}
		}
	}
	for _, name := range []string{"", ".guestd-upload-", ".guestd-upload-xx-0123456789abcdef01234567", ".bashrc"} {
		if isHidden(name) {
			t.Errorf("%q is hidden", name)
		}
	}
}

func FuzzParseRaw(f *testing.F) {
	f.Fuzz(func(t *testing.T, buf []byte) {
		for len(buf) > 0 {
			_, rest, ok := parseRaw(buf)
			if !ok {
				return
			}
			if len(rest) >= len(buf) {
				t.Fatal("no progress")
			}
			buf = rest
		}
	})
}
