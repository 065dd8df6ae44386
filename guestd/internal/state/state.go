// Package state holds what the platform told this daemon about its sandbox.
package state

import (
	"maps"
	"sync"
	"time"
)

// WireVersion is the level of the E2B wire that the daemon speaks, sent as X-Envd-Version.
const WireVersion = "0.6.13"

// State is what /init set. All methods are safe for concurrent use.
type State struct {
	mu   sync.RWMutex
	data Settings
}

// Settings is one consistent view of the state.
type Settings struct {
	AccessToken    string
	ControlToken   string
	DefaultUser    string
	DefaultWorkdir string
	Envs           map[string]string // never changed in place: replaced as a whole
	SandboxID      string
	TemplateID     string
	EventsAddress  string
	LifecycleID    string
	AppliedAt      time.Time // timestamp of the newest /init that was applied
}

// Identity is the variables that say which sandbox this is. /init cannot override them.
func (s Settings) Identity() map[string]string {
	identity := map[string]string{"E2B_SANDBOX": "true"}
	for name, value := range map[string]string{
		"E2B_SANDBOX_ID":     s.SandboxID,
		"E2B_TEMPLATE_ID":    s.TemplateID,
		"E2B_EVENTS_ADDRESS": s.EventsAddress,
	} {
		if value != "" {
			identity[name] = value
		}
	}
	return identity
}

// New returns the state before any /init: no tokens, user root.
func New() *State {
	return &State{data: Settings{DefaultUser: "root", Envs: map[string]string{}}}
}

// Snapshot returns a view that later changes do not touch.
func (s *State) Snapshot() Settings {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.data
}

// Change applies edit under the lock. An edit replaces Envs, it never writes into the old map.
func (s *State) Change(edit func(*Settings)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(&s.data)
}

// AccessToken is the token of the data plane; empty until /init sets one.
func (s *State) AccessToken() string { return s.Snapshot().AccessToken }

// ControlToken is the token of the platform; empty until /init sets one.
func (s *State) ControlToken() string { return s.Snapshot().ControlToken }

// DefaultUser is the user of requests that name none.
func (s *State) DefaultUser() string { return s.Snapshot().DefaultUser }

// DefaultWorkdir is the folder of requests that name none; empty means the user's home.
func (s *State) DefaultWorkdir() string { return s.Snapshot().DefaultWorkdir }

// Envs returns a copy of the sandbox-wide variables.
func (s *State) Envs() map[string]string { return maps.Clone(s.Snapshot().Envs) }

// Version is the wire level, for X-Envd-Version.
func (s *State) Version() string { return WireVersion }
