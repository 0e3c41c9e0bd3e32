package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// interrupts returns a context that is cancelled by a signal that should end the command. The signal is remembered for
// the exit code, which is then the one that a shell reports for a program that a signal ended.
func (w world) interrupts() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, terminationSignals()...)
	go func() {
		select {
		case sig := <-signals:
			if s, ok := sig.(syscall.Signal); ok && w.caught != nil {
				w.caught.Store(int32(s))
			}
			cancel(fmt.Errorf("interrupted by %v", sig))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// interrupted returns the exit code for a command that failed after a signal, or 0 if there was no signal.
func (w world) interrupted() int {
	if w.caught == nil || w.caught.Load() == 0 {
		return 0
	}
	return 128 + int(w.caught.Load())
}

func newCaught() *atomic.Int32 { return new(atomic.Int32) }
