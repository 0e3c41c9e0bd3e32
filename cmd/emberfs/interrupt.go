package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// interrupts gives a context that ends when somebody wants the command to end. One that ends by it says so with the
// exit code that a shell gives a program that a signal ended.
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

// interrupted is the exit code of a command that ended with an error after a signal; 0: there was none.
func (w world) interrupted() int {
	if w.caught == nil || w.caught.Load() == 0 {
		return 0
	}
	return 128 + int(w.caught.Load())
}

func newCaught() *atomic.Int32 { return new(atomic.Int32) }
