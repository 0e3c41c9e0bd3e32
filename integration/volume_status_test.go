package integration

import (
	"encoding/json"
	"testing"
	"time"
)

// status is what `emberfs status --json` prints.
type status struct {
	PID        int    `json:"pid"`
	Mountpoint string `json:"mountpoint"`
	Volume     string `json:"volume"`
	Source     string `json:"source"`
	Branch     string `json:"branch"`
	State      string `json:"state"`
	Tiers      struct {
		Hot struct {
			Files, Bytes, Limit int64
			Hits, Misses        uint64
			Inodes              int64
			InodesMax           int64 `json:"inodes_max"`
		}
		Warm struct {
			Files, Bytes, Stubs, Unlisted, Limit, Released, Returned int64

			Hits     uint64
			LastTick *tierReport `json:"last_tick"`
		}
		Cold struct {
			Files, Bytes, Packs int64

			Hits uint64
		}
	} `json:"tiers"`
	Memory struct {
		Available           bool
		Why                 string
		Files, Bytes, Limit int64
		Directories         int
	} `json:"memory"`
	AtRisk struct {
		Files   int64   `json:"files"`
		Bytes   int64   `json:"bytes"`
		Seconds float64 `json:"seconds"`
	} `json:"at_risk"`
	LastCommit, LastPush *struct {
		ID   string    `json:"id"`
		Time time.Time `json:"time"`
	}
	Records bool     `json:"records"`
	LeftOut []string `json:"left_out"`
	Errors  []string `json:"errors"`
	Rules   []string `json:"rules"`
	Notes   []string `json:"notes"`
	raw     map[string]json.RawMessage
}

func (v *volume) status() status {
	v.t.Helper()
	r := v.emberfs("status", v.mnt, "--json")
	if r.code != 0 {
		v.t.Fatalf("%v", r)
	}
	var s status
	if err := json.Unmarshal([]byte(r.stdout), &s.raw); err != nil {
		v.t.Fatalf("status --json: %v\n%v", err, r)
	}
	get := func(key string, into any) {
		if raw, ok := s.raw[key]; !ok {
			v.t.Fatalf("status --json has no %q\n%s", key, r.stdout)
		} else if err := json.Unmarshal(raw, into); err != nil {
			v.t.Fatalf("status --json: %s: %v", key, err)
		}
	}
	check(v.t, json.Unmarshal([]byte(r.stdout), &s))
	get("last_commit", &s.LastCommit)
	get("last_push", &s.LastPush)
	return s
}

// get reads one field of the status.
func (s status) get(t testing.TB, key string, into any) {
	t.Helper()
	check(t, json.Unmarshal(s.raw[key], into))
}

func (v *volume) daemon() int {
	v.t.Helper()
	if v.fg != nil {
		return v.fg.Process.Pid
	}
	pid := v.status().PID
	if pid <= 1 || !alive(pid) {
		v.t.Fatalf("status names daemon %d, which does not run", pid)
	}
	return pid
}
