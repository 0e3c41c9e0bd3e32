package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"emberfs/cmd/emberfs/notice"
	"emberfs/tiers"
)

func nullLog() logrus.FieldLogger {
	log, _ := logtest.NewNullLogger()
	return log
}

// stuckVolume is a volume whose backups hang until a channel is closed, whatever their context says.
type stuckVolume struct {
	*fakeVolume
	until chan struct{}
}

func (v *stuckVolume) Sync(context.Context, string) (*tiers.Receipt, error) {
	<-v.until
	return &tiers.Receipt{}, nil
}

// told returns what the volume was told of the end of its machine.
func (v *fakeVolume) told() []time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.expires)
}

// TestNoticed: the volume learns of a final notice and of its end, a warning is one backup, the hook runs once for
// each, and status and notice.json say it.
func TestNoticed(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	c := &config{Mountpoint: "/m n", Notice: "none",
		NoticeCommand: `echo "$EMBERFS_NOTICE_WHAT $EMBERFS_NOTICE_UNTIL $EMBERFS_MOUNTPOINT" >> ` + out}
	vol := &fakeVolume{}
	d := newDaemon(c, vol, newFakeMount(), nullLog())
	report := &statusReport{config: c, vol: vol}
	if report.notice() != nil {
		t.Error("there is a notice.json before the daemon")
	}
	report.daemon.Store(d)
	signals := make(chan os.Signal, 1)
	d.noticed.begin(signals)
	hooks := func(want string) {
		t.Helper()
		eventually(t, "hook", func() bool { b, _ := os.ReadFile(out); return string(b) == want })
	}
	if report.notice() != nil || d.status().Notice != nil {
		t.Error("there is a notice without one")
	}

	d.noticed.board.Put("x", &notice.Notice{What: "rebalance", Source: "aws"})
	eventually(t, "backup", func() bool {
		vol.mu.Lock()
		defer vol.mu.Unlock()
		return slices.Equal(vol.syncs, []string{"notice"})
	})
	hooks("rebalance  /m n\n")
	if len(vol.told()) > 0 {
		t.Errorf("a warning expires the volume: %v", vol.told())
	}
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	d.noticed.board.Put("y", &notice.Notice{What: "stop", Source: "aws", Until: until})
	lines := "rebalance  /m n\nstop " + until.Format(time.RFC3339) + " /m n\n"
	hooks(lines)
	if got := vol.told(); len(got) != 1 || !got[0].Equal(until) {
		t.Errorf("the volume was told %v", got)
	}
	var file, status struct {
		What, Until string
		Notice      json.RawMessage
	}
	noError(t, json.Unmarshal(report.notice(), &file))
	noError(t, json.Unmarshal(report.text(), &status))
	noError(t, json.Unmarshal(status.Notice, &status))
	if want := until.Format("2006-01-02T15:04:05.000Z"); file.What != "stop" || file.Until != want ||
		status.What != "stop" || status.Until != want {
		t.Errorf("%+v, %+v", file, status)
	}

	later := until.Add(time.Hour) // the same notice with another time: no hook
	d.noticed.board.Put("y", &notice.Notice{What: "stop", Source: "aws", Until: later})
	d.noticed.board.Put("y", nil)
	d.noticed.board.Put("x", nil)
	if got := vol.told(); len(got) != 3 || !got[1].Equal(later) || !got[2].IsZero() || report.notice() != nil {
		t.Errorf("after the withdrawal the volume was told %v", got)
	}
	signals <- syscall.SIGUSR1
	eventually(t, "signal", func() bool { return len(vol.told()) == 4 })
	n := d.status().Notice
	hooks(lines + "signal " + n.Until.UTC().Format(time.RFC3339) + " /m n\n")
	d.noticed.end()
	d.noticed.board.Put("y", nil)
	d.noticed.board.Put("y", &notice.Notice{What: "stop", Source: "aws", Until: until})
	if got := vol.told(); len(got) != 4 {
		t.Errorf("after the end the volume is told %v", got)
	}
	signals <- syscall.SIGUSR1 // nobody reads it any more
}

// TestNoticedOverdue: where the machine is still there backups are as before.
func TestNoticedOverdue(t *testing.T) {
	vol := &fakeVolume{}
	n := newNoticed(&config{Notice: "none"}, vol, nullLog())
	defer n.end()
	n.board.Put("y", &notice.Notice{What: "stop", Source: "aws", Until: time.Now().Add(time.Hour)})
	if len(vol.told()) != 1 {
		t.Fatalf("told %v", vol.told())
	}
	n.overdue(&notice.Notice{What: "another"}) // by a timer of a notice that was replaced
	if len(vol.told()) != 1 {
		t.Fatalf("told %v", vol.told())
	}
	n.overdue(n.board.Current())
	if got := vol.told(); len(got) != 2 || !got[1].IsZero() || n.board.Current() == nil {
		t.Errorf("told %v", got)
	}
}

// TestNoticedEnds: neither a hook nor a backup that hangs holds up the end.
func TestNoticedEnds(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	log, hook := logtest.NewNullLogger()
	vol := &stuckVolume{fakeVolume: &fakeVolume{}, until: stuck}
	n := newNoticed(&config{Notice: "none", NoticeCommand: "sleep 61"}, vol, log)
	n.board.Put("y", &notice.Notice{What: "rebalance", Source: "aws"})
	began := time.Now()
	n.end()
	if took := time.Since(began); took > noticeGone+2*time.Second {
		t.Errorf("the end took %v", took)
	}
	eventually(t, "log", func() bool {
		return slices.ContainsFunc(hook.AllEntries(), func(e *logrus.Entry) bool {
			return strings.Contains(e.Message, "notice_command failed") &&
				fmt.Sprint(e.Data[logrus.ErrorKey]) == "killed: the volume has been unmounted"
		})
	})
}

// TestNoticeCommand: what the command says is logged, and it can run emberfs and mount(8), which take none of its
// variables for settings.
func TestNoticeCommand(t *testing.T) {
	log, hook := logtest.NewNullLogger()
	settings := &config{Notice: "none", Mountpoint: "/m", NoticeCommand: "echo drained; echo well"}
	n := newNoticed(settings, &fakeVolume{}, log)
	of := &notice.Notice{What: "stop", Source: "aws", Until: time.Now().Add(time.Hour)}
	n.hook(of)
	n.end()
	if last := hook.LastEntry(); last == nil || last.Data["output"] != "drained well" {
		t.Errorf("it logs %+v", last)
	}
	c, err := resolve("mount", nil, nil, hookEnvironment(of, "/m"))
	if err != nil || len(c.Warnings) > 0 {
		t.Errorf("the variables of the command are settings: %v, %q", err, c.Warnings)
	}
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		in   time.Duration
		at   string
		want time.Time
		lead time.Duration
	}{
		{0, "", time.Time{}, expiryLead},
		{4 * time.Hour, "", now.Add(4 * time.Hour), expiryLead},
		{20 * time.Second, "", now.Add(20 * time.Second), 10 * time.Second},
		{4 * time.Hour, "2026-01-01T01:00:00Z", now.Add(time.Hour), expiryLead},
		{time.Minute, "2026-01-01T01:00:00Z", now.Add(time.Minute), 30 * time.Second},
		{0, "2026-01-01T01:00:00Z", now.Add(time.Hour), expiryLead},
	} {
		at, lead := expiry(&config{ExpiresIn: c.in, ExpiresAt: c.at}, now)
		if !at.Equal(c.want) || lead != c.lead {
			t.Errorf("%v %q: %v, %v", c.in, c.at, at, lead)
		}
	}
}

func TestNoticeText(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	n := &notice.Notice{What: "stop", Source: "aws", Detail: "why", When: now.Add(-5 * time.Second)}
	for until, want := range map[time.Duration]string{
		0:            "stop (aws: why), since 5 seconds ago; this machine may go away",
		time.Minute:  "stop (aws: why), since 5 seconds ago; this machine goes away at 2026-01-01T00:01:00Z, in 1m0s",
		-time.Minute: "stop (aws: why), since 5 seconds ago; this machine was to go away at 2025-12-31T23:59:00Z",
	} {
		n.Until = time.Time{}
		if until != 0 {
			n.Until = now.Add(until)
		}
		if got := noticeText(n, now); got != want {
			t.Errorf("%q", got)
		}
	}
}

// TestNoticeSettings: what the settings take and refuse.
func TestNoticeSettings(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"notice", "AWS", "aws"}, {"notice", "file:/x", "file:/x"}, {"notice", "soon", ""}, {"notice", "", ""},
		{"expires_in", "4h", "4h0m0s"}, {"expires_in", "10ms", ""}, {"expires_in", "4", ""},
		{"expires_at", "2026-11-30T18:00:00+01:00", "2026-11-30T17:00:00Z"}, {"expires_at", "tomorrow", ""},
	} {
		s, ok := findSetting(c.name)
		got, err := s.canonical(c.value)
		if !ok || got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s=%s: %q, %v", c.name, c.value, got, err)
		}
	}
	if got := noticeFile(&config{Notice: "file:/x"}); got != "/x" {
		t.Errorf("%q", got)
	}
	if got := noticeFile(&config{Notice: "command:/x"}); got != "" {
		t.Errorf("%q", got)
	}
}
