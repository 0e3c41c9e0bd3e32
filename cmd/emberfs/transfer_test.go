package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestShowTransfer checks that a command that waits for a push shows objects, bytes and rate on a terminal, each
// transfer by itself, and that nothing stays there.
func TestShowTransfer(t *testing.T) {
	t.Setenv("TERM", "xterm")
	x := serveFake(t, &config{Mountpoint: "/m"}, nil)
	s := must(serveControl(x.config.State, x.daemon))(t)
	defer s.close()
	tty, screen := openTerminal(t, 120)
	stop := showTransfer(t.Context(), newClient(x.config.State), world{err: tty})
	x.transfers.set("push", 1000, 4000, 8<<30)
	eventually(t, "a push", func() bool {
		return regexp.MustCompile(`push .*1,000 of 4,000 objects  8\.0 GiB  [0-9.]+ [GT]iB/s  25%`).MatchString(
			screen.String())
	})
	x.transfers.set("", 0, 0, 0)
	x.transfers.set("fetch", 7, 0, 0)
	fetch := regexp.MustCompile(`fetch .*7 objects`)
	eventually(t, "a fetch", func() bool { return fetch.MatchString(screen.String()) })
	stop()
	stop()
	fmt.Fprintln(tty, "END")
	eventually(t, "the end", func() bool { return strings.Contains(screen.String(), "END") })
	got := screen.String()
	if last := got[strings.LastIndex(got, "\x1b[J"):]; strings.Contains(last, "fetch") {
		t.Errorf("it is still there: %q", last)
	}

	quiet := true
	w := world{err: tty, quiet: &quiet}
	showTransfer(t.Context(), newClient(x.config.State), w)()
	x.mount.leave()
	x.final(t)
}
