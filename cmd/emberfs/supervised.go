package main

import (
	"fmt"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/dustin/go-humanize"
)

const (
	// extendEvery is how often the service manager is asked for more time while the daemon starts or ends, and
	// extension how much it is asked for, from then on: as long as a disk may be stuck without an end of the backup.
	extendEvery = time.Second
	extension   = time.Minute
	// signsOfLife is how many are given within the time in which the service manager wants one. The last of them is
	// when the volume last answered, so that the more there are the closer a volume that is only slow may come to it.
	signsOfLife = 6
	// statusEvery is how often the service manager is told what a mounted daemon does, if it wants no sign of life.
	statusEvery = 15 * time.Second
	// aliveBound is how long the volume may take to answer, while the daemon ends, before no more time is asked for.
	aliveBound = 5 * time.Second
)

// supervisor is the service manager that started the daemon as a service of Type=notify (sd_notify(3)), if there is
// one. It is safe for concurrent use.
type supervisor struct {
	notify func(state string) // sends a message
	there  bool               // somebody listens
	// watchdog is within which time the service manager wants a sign of life; 0: it wants none.
	watchdog time.Duration

	mu   sync.Mutex
	said string // the last status
}

// nobodySupervises is the supervisor of a daemon that was started by hand or by mount(8).
func nobodySupervises() *supervisor { return &supervisor{notify: func(string) {}} }

// newSupervisor returns the one that the environment names. Only a daemon in the foreground has one: one in the
// background is not the process that the service manager started.
func newSupervisor(foreground bool, getenv func(string) string) *supervisor {
	if !foreground || getenv("NOTIFY_SOCKET") == "" {
		return nobodySupervises()
	}
	s := &supervisor{there: true, notify: func(state string) { _, _ = systemd.SdNotify(false, state) }}
	if every, err := systemd.SdWatchdogEnabled(false); err == nil {
		s.watchdog = every
	}
	return s
}

// status tells what the daemon does, if that has changed.
func (s *supervisor) status(text string) {
	s.mu.Lock()
	changed := text != s.said
	s.said = text
	s.mu.Unlock()
	if changed {
		s.notify("STATUS=" + oneLine(text))
	}
}

// extend asks for more time every second, as long as alive says so, and tells what is done, until the returned function
// is called.
func (s *supervisor) extend(alive func() bool, doing func() string) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(extendEvery)
		defer tick.Stop()
		for {
			if alive() {
				s.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extension.Microseconds()))
				s.status(doing())
			}
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// pulse says whether the volume answers. One check runs at a time: where one hangs, no more are begun. It is safe for
// concurrent use.
type pulse struct {
	check func() // tiers.Volume.Alive

	mu      sync.Mutex
	running chan struct{} // closed when the check under way has ended; nil: there is none
	over    bool          // no more checks, because the volume is being closed
}

// alive says whether the volume answers within bound. While the volume is being closed, which is nothing that can be
// asked, it does.
func (p *pulse) alive(bound time.Duration) bool {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return true
	}
	if p.running == nil {
		running := make(chan struct{})
		p.running = running
		go func() { // it ends with the check; one that hangs ends with the process
			p.check()
			p.mu.Lock()
			p.running = nil
			p.mu.Unlock()
			close(running)
		}()
	}
	running := p.running
	p.mu.Unlock()
	select {
	case <-running:
		return true
	case <-time.After(bound):
		return false
	}
}

// end lets no more checks begin, and waits for the one under way, at most patience.
func (p *pulse) end(patience time.Duration) {
	p.mu.Lock()
	p.over = true
	running := p.running
	p.mu.Unlock()
	if running == nil {
		return
	}
	select {
	case <-running:
	case <-time.After(patience):
	}
}

// watch gives the service manager a sign of life some times within the time in which it wants one, as long as the
// volume answers, and tells it what the daemon does. It returns when the daemon begins to end: then extendTimeout goes
// on.
func (d *daemon) watch() {
	every, late := statusEvery, statusEvery
	if d.supervisor.watchdog > 0 {
		every, late = d.supervisor.watchdog/signsOfLife, d.supervisor.watchdog/2
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for answered, hung := time.Now(), false; ; {
		switch alive := d.pulse.alive(every); { // a check that takes longer is waited for in the next round
		case alive && d.supervisor.watchdog > 0:
			d.supervisor.notify("WATCHDOG=1")
			fallthrough
		case alive:
			d.supervisor.status(d.doing())
			answered, hung = time.Now(), false
		case !hung && time.Since(answered) >= late:
			d.log.Errorf("the volume has not answered for %v: if it stays so, the service manager ends this daemon",
				time.Since(answered).Round(time.Millisecond))
			hung = true
		}
		select {
		case <-tick.C:
		case <-d.leaving:
			return
		}
	}
}

// doing says what the daemon does, for the service manager.
func (d *daemon) doing() string {
	d.mu.Lock()
	ending := d.mu.stopped || d.mu.phase == phaseFinishing
	d.mu.Unlock()
	p, now := d.vol.Progress(), d.transfers.get()
	final := ""
	if ending {
		final = "final backup: "
	}
	switch {
	case !p.Since.IsZero() && ending:
		return final + amount(p.Files, p.Of, "file", time.Since(p.Since))
	case !p.Since.IsZero():
		return "backup: " + amount(p.Files, p.Of, "file", time.Since(p.Since))
	case now.What != "":
		return final + now.What + ": " + amount(now.Objects, now.Of, "object", time.Since(now.since))
	case p.AtRisk.Files > 0 || p.AtRisk.Bytes > 0:
		what := count(p.AtRisk.Files, "file") + ", " + size(p.AtRisk.Bytes)
		if ending { // the remote has got it, and has not acknowledged it, or the commit is about to begin
			return final + "not safe yet: " + what
		}
		return "mounted; at risk: " + what
	case ending:
		return final + "nothing is left"
	}
	return "mounted; everything is backed up"
}

// amount says how much of some work is done, and how long the rest may take, if that can be told: "312 of 1,024 files,
// 8 s left". of is 0 where it is not known.
func amount(done, of int64, unit string, took time.Duration) string {
	if of <= 0 {
		return count(done, unit)
	}
	text := humanize.Comma(done) + " of " + count(of, unit)
	if done > 0 && done < of && took >= time.Second {
		left := time.Duration(float64(took) * float64(of-done) / float64(done))
		text += fmt.Sprintf(", %d s left", int64(left.Round(time.Second)/time.Second))
	}
	return text
}

// starting says what a daemon does that is not mounted yet.
func starting(moving *transfers, shown *progress) string {
	if now := moving.get(); now.What != "" {
		return "starting: " + now.What + ": " + amount(now.Objects, now.Of, "object", time.Since(now.since))
	}
	if text := shown.text(", "); text != "" {
		return "starting: " + shown.label() + ": " + text
	}
	return "starting"
}
