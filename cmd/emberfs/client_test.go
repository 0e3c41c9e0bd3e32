package main

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCutOff checks what a command says if its connection is closed before the answer: a daemon that ended is none, and
// one that goes on has failed.
func TestCutOff(t *testing.T) {
	for _, ends := range []bool{true, false} {
		state := t.TempDir()
		l := must(listenControl(state))(t)
		cl, got := newClient(state), make(chan error)
		go func() {
			_, err := cl.who(t.Context())
			got <- err
		}()
		conn := must(l.Accept())(t)
		must(io.ReadFull(conn, make([]byte, 1)))(t) // the rest of the request is not read
		if ends {
			noError(t, l.remove())
		}
		noError(t, conn.Close())
		if err := <-got; !errors.Is(err, unix.ECONNRESET) || errors.Is(err, errNoDaemon) != ends {
			t.Errorf("the daemon ends: %v: %v", ends, err)
		}
		if !ends {
			noError(t, l.remove())
		}
	}
}
