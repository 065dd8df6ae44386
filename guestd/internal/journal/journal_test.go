package journal

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func fixed() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC) }

func TestEntriesComeInOrderAndInPages(t *testing.T) {
	j := New(fixed)
	for _, word := range []string{"a", "b", "c"} {
		j.Info("test", word, map[string]string{"k": word})
	}
	first := j.After(0, 2)
	if len(first.Entries) != 2 || first.Entries[0].Message != "a" || first.Dropped != 0 {
		t.Fatalf("got %+v", first)
	}
	rest := j.After(first.Entries[1].Seq, 10)
	if len(rest.Entries) != 1 || rest.Entries[0].Message != "c" || rest.Entries[0].Fields["k"] != "c" {
		t.Fatalf("got %+v", rest)
	}
	if got := rest.Entries[0].Timestamp; got != "2030-01-02T03:04:05.000000006Z" {
		t.Errorf("timestamp %s", got)
	}
	if none := j.After(3, 10); none.Entries == nil || len(none.Entries) != 0 {
		t.Errorf("got %+v, want an empty list", none)
	}
}

func TestARequestIsNamedOnlyInPlainWords(t *testing.T) {
	for given, want := range map[string]string{
		"abc-1.2_X":             "abc-1.2_X",
		"":                      "",
		"a b":                   "",
		"a\nb":                  "",
		strings.Repeat("a", 65): "",
		"é":                     "",
	} {
		if got := Request(http.Header{"X-Request-Id": {given}}); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

func TestOldEntriesAreDroppedAndCounted(t *testing.T) {
	j := New(fixed)
	for range MaxEntries + 5 {
		j.Warn("test", "x", nil)
	}
	page := j.After(0, MaxEntries)
	if page.Dropped != 5 || len(page.Entries) != MaxEntries || page.Entries[0].Seq != 6 {
		t.Errorf("dropped %d, %d entries from %d", page.Dropped, len(page.Entries), page.Entries[0].Seq)
	}
	if last := page.Entries[MaxEntries-1].Seq; last != MaxEntries+5 {
		t.Errorf("last is %d", last)
	}
}

func TestReaderFromAnEarlierLifeStartsOver(t *testing.T) {
	j := New(fixed)
	j.Info("test", "new", nil)
	if page := j.After(500, 10); len(page.Entries) != 1 {
		t.Errorf("got %+v", page)
	}
}

func FuzzCut(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = 4 + max(limit, -limit, 0)%100
		got := Cut(text, limit)
		if len(got) > limit {
			t.Errorf("%d bytes, limit %d", len(got), limit)
		}
		if utf8.ValidString(text) && !utf8.ValidString(got) {
			t.Errorf("%q is broken", got)
		}
		if len(text) <= limit && got != text || !strings.HasPrefix(text, strings.TrimSuffix(got, "…")) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
