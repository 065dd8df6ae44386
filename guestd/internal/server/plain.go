package server

import (
	"net/http"
	"strconv"

	"warren.dev/guestd/internal/journal"
)

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

func (s *server) envs(w http.ResponseWriter, _ *http.Request) {
	set := s.State.Snapshot()
	all := set.Identity()
	for name, value := range set.Envs {
		if _, fixed := all[name]; !fixed {
			all[name] = value
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	reply(w, http.StatusOK, all)
}

// keepEnvs puts the variables where they outlive a pause that keeps files alone.
func (s *server) keepEnvs(w http.ResponseWriter, _ *http.Request) {
	if err := s.Keepsake.Put(s.State.Envs()); err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	reply(w, http.StatusOK, s.Metrics.Read())
}

// logs pages through the journal: what came after a sequence number.
func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	after, err := number(r, "after", 0)
	if err != nil {
		refuse(w, http.StatusBadRequest, "cannot read 'after'; give a sequence number")
		return
	}
	limit, err := number(r, "limit", journal.MaxEntries)
	if err != nil {
		refuse(w, http.StatusBadRequest, "cannot read 'limit'; give a number of entries")
		return
	}
	reply(w, http.StatusOK, s.Journal.After(after, int(min(limit, journal.MaxEntries))))
}

// free ends processes for memory; round counts how often that was not enough.
func (s *server) free(w http.ResponseWriter, r *http.Request) {
	need, needErr := number(r, "bytes", 0)
	round, roundErr := number(r, "round", 0)
	if needErr != nil || roundErr != nil {
		refuse(w, http.StatusBadRequest, "cannot read 'bytes' and 'round'; give two numbers")
		return
	}
	reply(w, http.StatusOK, map[string]any{"ended": s.Guard.Free(need, int(min(round, maxRounds)))})
}

// maxRounds keeps a number in range; the last step comes long before.
const maxRounds = 100

func number(r *http.Request, name string, absent uint64) (uint64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	return strconv.ParseUint(text, 10, 64)
}
