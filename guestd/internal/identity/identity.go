// Package identity writes the files that tell programs which machine they are on.
package identity

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// EventsHost is the name under which the platform's event receiver is known inside.
const EventsHost = "events.e2b.local"

// maxDNSServers is what the C library reads of resolv.conf.
const maxDNSServers = 3

var (
	hostnameForm  = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$`)
	machineIDForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
	idForm        = regexp.MustCompile(`^[a-zA-Z0-9_.:/-]{0,256}$`)
)

// Identity is what to write; nil leaves a file as it is.
type Identity struct {
	SandboxID, TemplateID *string
	Hostname, MachineID   *string
	DNSServers            []string
	EventsIP              *string
	CABundle              *string
}

// Check refuses what would put more into a file than its one line.
func (i Identity) Check() error {
	switch {
	case i.Hostname != nil && !hostnameForm.MatchString(*i.Hostname):
		return errors.New("cannot use this hostname; letters, digits, '-' and '.', at most 63")
	case i.MachineID != nil && !machineIDForm.MatchString(*i.MachineID):
		return errors.New("cannot use this machineID; give 32 hexadecimal digits")
	case i.SandboxID != nil && !idForm.MatchString(*i.SandboxID):
		return errors.New("cannot use this sandboxID; letters, digits and '_.:/-', at most 256")
	case i.TemplateID != nil && !idForm.MatchString(*i.TemplateID):
		return errors.New("cannot use this templateID; letters, digits and '_.:/-', at most 256")
	case len(i.DNSServers) > maxDNSServers:
		return fmt.Errorf("cannot use more than %d dnsServers", maxDNSServers)
	case i.CABundle != nil && !isCertificates(*i.CABundle):
		return errors.New("cannot read caBundle; give PEM certificates")
	}
	for _, server := range i.DNSServers {
		if !isAddress(server) {
			return fmt.Errorf("cannot use %q of dnsServers; give IP addresses", server)
		}
	}
	if i.EventsIP != nil && *i.EventsIP != "" && !isAddress(*i.EventsIP) {
		return errors.New("cannot use this hyperloopIP; give an IP address")
	}
	return nil
}

// isAddress takes zones only if they look like the name of an interface: the parser lets
// anything through there, also line breaks.
func isAddress(text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && idForm.MatchString(address.Zone())
}

func isCertificates(text string) bool {
	rest := []byte(text)
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return strings.TrimSpace(string(rest)) == ""
		}
		if block.Type != "CERTIFICATE" {
			return false
		}
	}
}
