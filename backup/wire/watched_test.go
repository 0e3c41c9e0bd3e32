package wire

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

// watchedPipes is a session whose other side is the two ends that it returns: what is sent, and what to answer by.
func watchedPipes(t *testing.T, thinking func() bool) (w *watched, sent *io.PipeReader, answer *io.PipeWriter) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	out, answer := io.Pipe()
	sent, in := io.Pipe()
	context.AfterFunc(ctx, func() {
		_ = out.CloseWithError(io.ErrClosedPipe)
		_ = sent.CloseWithError(io.ErrClosedPipe)
	})
	t.Cleanup(func() { cancel(nil) })
	return &watched{in: in, out: out, ctx: ctx, cancel: cancel, thinking: thinking, idle: 300 * time.Millisecond,
		think: 2 * time.Second}, sent, answer
}

// TestWatchedUpload: while a long request is sent nothing has to come, until the request has ended.
func TestWatchedUpload(t *testing.T) {
	w, sent, answer := watchedPipes(t, nil)
	w.send()
	read := make(chan error, 1)
	b := make([]byte, 10)
	go func() { _, err := w.Read(b); read <- err }()
	go func() { _, _ = io.Copy(io.Discard, sent) }()
	for range 6 { // twice the limit
		_, err := w.Write([]byte("pack"))
		check(t, err)
		time.Sleep(100 * time.Millisecond)
	}
	go func() { _, _ = answer.Write([]byte("ok")) }()
	check(t, <-read)
	go func() { _, err := w.Read(b); read <- err }()
	check(t, w.Close())
	if err := <-read; !errors.Is(err, errIdle) {
		t.Errorf("after the request, and in silence: %v", err)
	}
}

// TestWatchedStalls: what is sent has to go, and what is waited for has to come.
func TestWatchedStalls(t *testing.T) {
	w, _, _ := watchedPipes(t, nil)
	w.send()
	if _, err := w.Write([]byte("pack")); !errors.Is(err, errIdle) {
		t.Errorf("nobody reads: %v", err)
	}
	w, _, _ = watchedPipes(t, nil)
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, errIdle) {
		t.Errorf("nobody writes: %v", err)
	}
}

// TestWatchedThinks: a web server may think longer, but not for ever.
func TestWatchedThinks(t *testing.T) {
	w, _, answer := watchedPipes(t, func() bool { return true })
	time.AfterFunc(time.Second, func() { _, _ = answer.Write([]byte("x")) })
	_, err := w.Read(make([]byte, 1))
	check(t, err)
	start := time.Now()
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, errIdle) || time.Since(start) < time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

// TestWatchedSlowly: bytes that go all the time are no silence, however slow they are and how much is sent at a time;
// nor is the time in which the last of them are still on their way.
func TestWatchedSlowly(t *testing.T) {
	w, sent, answer := watchedPipes(t, nil)
	w.send()
	onTheWay := make(chan int, 1000)
	go func() {
		b := make([]byte, 1024)
		for {
			n, err := sent.Read(b)
			if err != nil {
				close(onTheWay)
				return
			}
			onTheWay <- n
			time.Sleep(3 * time.Millisecond)
		}
	}()
	go func() {
		for range onTheWay {
			time.Sleep(7 * time.Millisecond)
		}
		_, _ = answer.Write([]byte("ok"))
	}()
	read := make(chan error, 1)
	go func() { _, err := w.Read(make([]byte, 10)); read <- err }()
	if n, err := w.Write(make([]byte, 160<<10)); err != nil {
		t.Errorf("after %d bytes: %v", n, err)
	}
	check(t, w.Close())
	check(t, <-read)
}
