package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"warren.dev/guestd/internal/identity"
	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/state"
)

// maxInitBytes bounds the body of /init: environment variables and a CA bundle.
const maxInitBytes = 4 << 20

// instructions is the body of /init. A pointer tells absent (keep) from empty (clear).
type instructions struct {
	EnvVars        map[string]string `json:"envVars"`
	AccessToken    *string           `json:"accessToken"`
	Timestamp      *time.Time        `json:"timestamp"`
	DefaultUser    *string           `json:"defaultUser"`
	DefaultWorkdir *string           `json:"defaultWorkdir"`
	HyperloopIP    *string           `json:"hyperloopIP"`
	LifecycleID    *string           `json:"lifecycleID"`
	VolumeMounts   []json.RawMessage `json:"volumeMounts"`
	CABundle       *string           `json:"caBundle"`

	ControlToken *string  `json:"controlToken"`
	SandboxID    *string  `json:"sandboxID"`
	TemplateID   *string  `json:"templateID"`
	Hostname     *string  `json:"hostname"`
	MachineID    *string  `json:"machineID"`
	DNSServers   []string `json:"dnsServers"`

	IsCopy      bool `json:"isCopy"`      // another sandbox has lived, or still lives, this life
	RecallsEnvs bool `json:"recallsEnvs"` // the variables lie where POST /warren/envs has put them
}

// init takes what the platform says about this sandbox.
func (s *server) init(w http.ResponseWriter, r *http.Request) {
	s.initializing.Lock()
	defer s.initializing.Unlock()
	before := s.State.Snapshot()
	if !mayInitialize(r, before) {
		refuse(w, http.StatusUnauthorized, "cannot accept this request; it takes the platform's token")
		return
	}
	told, err := parseInstructions(http.MaxBytesReader(w, r.Body, maxInitBytes))
	if err != nil {
		refuse(w, http.StatusBadRequest, "cannot read the body of /init: "+err.Error())
		return
	}
	// A copy is always told, whatever the clocks say: it must not go on under its source's identity.
	if told.IsCopy || told.Timestamp == nil || !told.Timestamp.Before(before.AppliedAt) {
		if err := s.apply(told, before, journal.Request(r.Header)); err != nil {
			s.Journal.Warn("init", err.Error(), nil)
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
	}
	w.Header().Set("X-Envd-Version", state.WireVersion)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

func mayInitialize(r *http.Request, set state.Settings) bool {
	if set.ControlToken != "" {
		return matches(r, controlTokenHeader, set.ControlToken)
	}
	return matches(r, accessTokenHeader, set.AccessToken)
}

func parseInstructions(body io.Reader) (instructions, error) {
	var told instructions
	decoder := json.NewDecoder(body)
	if err := decoder.Decode(&told); err != nil && !errors.Is(err, io.EOF) {
		return told, err
	}
	if len(told.VolumeMounts) > 0 {
		return told, errors.New("cannot mount volumes from inside; leave volumeMounts out")
	}
	for name, value := range told.EnvVars {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return told, fmt.Errorf("cannot set the variable %q; names take no '=', nothing takes NUL", name)
		}
	}
	return told, told.identity().Check()
}

func (i instructions) identity() identity.Identity {
	return identity.Identity{
		SandboxID: i.SandboxID, TemplateID: i.TemplateID, Hostname: i.Hostname, MachineID: i.MachineID,
		DNSServers: i.DNSServers, EventsIP: i.HyperloopIP, CABundle: i.CABundle,
	}
}

// apply writes the files first: what fails there has changed nothing that others rely on.
func (s *server) apply(told instructions, before state.Settings, request string) error {
	if err := s.Identity.Apply(told.identity()); err != nil {
		return err
	}
	kept := s.Keepsake.Take() // never longer there than from one pause to the next start
	if told.RecallsEnvs && told.EnvVars == nil {
		told.EnvVars = kept
	}
	s.State.Change(func(set *state.Settings) {
		if told.EnvVars != nil {
			set.Envs = maps.Clone(told.EnvVars)
		}
		keepOr(&set.DefaultUser, told.DefaultUser)
		keepOr(&set.DefaultWorkdir, told.DefaultWorkdir)
		keepOr(&set.LifecycleID, told.LifecycleID)
		keepOr(&set.SandboxID, told.SandboxID)
		keepOr(&set.TemplateID, told.TemplateID)
		keepOr(&set.ControlToken, told.ControlToken)
		keepOr(&set.AccessToken, told.AccessToken)
		if told.AccessToken == nil && before.ControlToken == "" {
			// Reference: no token in the body takes the old one away. Under a control token
			// the platform says so with an empty one, so that a short call opens no doors.
			set.AccessToken = ""
		}
		if told.HyperloopIP != nil {
			set.EventsAddress = eventsAddress(*told.HyperloopIP)
		}
		if told.Timestamp != nil {
			set.AppliedAt = *told.Timestamp
		}
	})
	if told.IsCopy {
		if err := s.AfterFork.Tell(); err != nil {
			return err
		}
	}
	set := s.State.Snapshot()
	s.Journal.Info("init", "settings applied", map[string]string{
		"sandbox_id": set.SandboxID, "template_id": set.TemplateID, "default_user": set.DefaultUser, "request": request,
	})
	return nil
}

func keepOr(target, value *string) {
	if value != nil {
		*target = *value
	}
}

func eventsAddress(ip string) string {
	if ip == "" {
		return ""
	}
	return "http://" + identity.EventsHost
}
