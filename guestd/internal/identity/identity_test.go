package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func text(s string) *string { return &s }

const certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

func content(t *testing.T, path string) string {
	t.Helper()
	bytes, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes)
}

func TestFilesOfAnIdentity(t *testing.T) {
	etc, run := t.TempDir(), filepath.Join(t.TempDir(), "run/e2b")
	w := NewWriter(etc, run)
	if err := w.Mark(); err != nil {
		t.Fatal(err)
	}
	err := w.Apply(Identity{
		SandboxID: text("abc"), TemplateID: text("ns/base:1"), Hostname: text("box"),
		MachineID: text(strings.Repeat("0f", 16)), DNSServers: []string{"10.0.0.1", "fd00::1"}, EventsIP: text("192.0.2.1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		run + "/.E2B_SANDBOX":     "true",
		run + "/.E2B_SANDBOX_ID":  "abc",
		run + "/.E2B_TEMPLATE_ID": "ns/base:1",
		etc + "/hostname":         "box\n",
		etc + "/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tbox\n" +
			"192.0.2.1\tevents.e2b.local\n",
		etc + "/machine-id":  strings.Repeat("0f", 16) + "\n",
		etc + "/resolv.conf": "nameserver 10.0.0.1\nnameserver fd00::1\n",
	} {
		if got := content(t, path); got != want {
			t.Errorf("%s is %q", path, got)
		}
	}
}

func TestWhatIsNotSaidStays(t *testing.T) {
	etc := t.TempDir()
	w := NewWriter(etc, etc)
	if err := w.Apply(Identity{Hostname: text("box")}); err != nil {
		t.Fatal(err)
	}
	if err := w.Apply(Identity{EventsIP: text("192.0.2.1")}); err != nil {
		t.Fatal(err)
	}
	if hosts := content(t, etc+"/hosts"); !strings.Contains(hosts, "\tbox\n") || !strings.Contains(hosts, EventsHost) {
		t.Errorf("hosts: %q", hosts)
	}
	if _, err := os.Stat(etc + "/machine-id"); err == nil {
		t.Error("a machine id was made up")
	}
}

func TestWhatIsSaidAgainLeavesWhatTheSandboxMadeOfIt(t *testing.T) {
	etc := t.TempDir()
	w := NewWriter(etc, etc)
	apply := func(hostname string) string {
		t.Helper()
		if err := w.Apply(Identity{Hostname: text(hostname)}); err != nil {
			t.Fatal(err)
		}
		return content(t, etc+"/hosts")
	}
	apply("box")
	if err := os.WriteFile(etc+"/hosts", []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if hosts := apply("box"); hosts != "mine" {
		t.Errorf("the sandbox's own hosts file became %q", hosts)
	}
	if hosts := apply("copy"); !strings.Contains(hosts, "\tcopy\n") {
		t.Errorf("a copy has the hosts file %q", hosts)
	}
}

func TestLinksAreReplacedAndNotFollowed(t *testing.T) {
	etc, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, etc+"/resolv.conf"); err != nil {
		t.Fatal(err)
	}
	if err := NewWriter(etc, etc).Apply(Identity{DNSServers: []string{"10.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	if content(t, victim) != "mine" || content(t, etc+"/resolv.conf") != "nameserver 10.0.0.1\n" {
		t.Error("the link was followed")
	}
	if entries, _ := os.ReadDir(etc); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestCertificatesAreExchangedAndTakenBack(t *testing.T) {
	etc := t.TempDir()
	path := filepath.Join(etc, certificatesFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("system\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w := NewWriter(etc, etc)
	other := strings.Replace(certificate, "AAAA", "BBBB", 1)
	for _, c := range []struct{ bundle, want string }{
		{certificate, "system\n" + beginMark + certificate + endMark},
		{other, "system\n" + beginMark + other + endMark},
		{"", "system\n"},
	} {
		if err := w.Apply(Identity{CABundle: &c.bundle}); err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, bad := range map[string]Identity{
		"hostname":   {Hostname: text("a\nb")},
		"hostname 2": {Hostname: text("-x")},
		"machine id": {MachineID: text("xyz")},
		"sandbox":    {SandboxID: text("a b")},
		"template":   {TemplateID: text("a\n")},
		"dns":        {DNSServers: []string{"10.0.0.1\noptions x"}},
		"many":       {DNSServers: []string{"::1", "::2", "::3", "::4"}},
		"ca":         {CABundle: text("junk")},
		"key":        {CABundle: text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
	} {
		if bad.Check() == nil {
			t.Errorf("%s is let through", name)
		}
	}
	if err := (Identity{CABundle: text(certificate + certificate), DNSServers: []string{}}).Check(); err != nil {
		t.Error(err)
	}
}

// FuzzCheck: what passes fits on one line of a file.
func FuzzCheck(f *testing.F) {
	f.Add("box", strings.Repeat("a", 32), "10.0.0.1")
	f.Fuzz(func(t *testing.T, hostname, id, server string) {
		i := Identity{Hostname: &hostname, SandboxID: &id, TemplateID: &id, DNSServers: []string{server}}
		if i.Check() == nil && strings.ContainsAny(hostname+id+server, " \t\r\n#\x00") {
			t.Errorf("%q %q %q", hostname, id, server)
		}
	})
}
