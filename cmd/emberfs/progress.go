package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

const (
	barDelay  = 500 * time.Millisecond // work that takes less shows no bar
	lineEvery = 5 * time.Second        // between plain lines, and before the first
)

// unitCost is how many bytes one unit counts for in addition to its own, because many small files take as long as few
// big ones.
const unitCost = 16 << 10

// barScale is the number of steps of a bar.
const barScale = 10_000

// progress shows on stderr how far long work is: a bar on a terminal, otherwise a line at most every 5 s, and nothing
// with --quiet. It never touches stdout. Its methods are safe for concurrent use and cheap enough to be called for each
// file. None of them returns errors: if the terminal has gone away, that is no reason to stop working.
type progress struct {
	err      io.Writer
	show     bool
	terminal bool
	every    time.Duration // between plain lines

	mu      sync.Mutex // guards these; no other lock is taken under it, because drawing takes it
	what    string     // "restore"
	unit    string     // "file"
	started time.Time
	units   int64
	bytes   int64
	ofUnits int64 // 0: not known
	ofBytes int64

	out  sync.Mutex    // held while stderr is written to
	bars *mpb.Progress // nil while no bar is drawn
	bar  *mpb.Bar

	stop chan struct{} // closed by done
	over chan struct{} // closed when nothing will be drawn any more
	once sync.Once
}

// newProgress begins to show the progress of what ("restore"), counted in unit ("file"; count makes the plural) and
// bytes. Nothing appears before set is called, or for work that is over at once. done must be called.
func newProgress(w world, what, unit string) *progress {
	p := &progress{err: w.err, what: what, unit: unit, show: !w.silent(), terminal: hasRoom(w.err), every: lineEvery}
	return p.start()
}

func (p *progress) start() *progress {
	p.started = time.Now()
	p.stop, p.over = make(chan struct{}), make(chan struct{})
	if p.show {
		go p.run()
	} else {
		close(p.over)
	}
	return p
}

// isTerminal reports whether w is a terminal that can move its cursor.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// hasRoom reports whether w is a terminal with a known size. A serial line may not have one, and then a bar could not
// be drawn.
func hasRoom(w io.Writer) bool {
	if !isTerminal(w) {
		return false
	}
	size, err := unix.IoctlGetWinsize(int(w.(*os.File).Fd()), unix.TIOCGWINSZ)
	return err == nil && size.Col > 0 && size.Row > 0
}

// begin goes over to other work, and counts anew.
func (p *progress) begin(what, unit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.unit, p.started = what, unit, time.Now()
	p.units, p.bytes, p.ofUnits, p.ofBytes = 0, 0, 0, 0
}

// label returns what the work is.
func (p *progress) label() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.what
}

// expect sets how much there is to do; 0 means that it is not known.
func (p *progress) expect(units, bytes int64) {
	p.mu.Lock()
	p.ofUnits, p.ofBytes = units, bytes
	p.mu.Unlock()
}

// set sets how much is done; bytes is 0 if they are not counted. It has the signature of most progress callbacks.
func (p *progress) set(units, bytes int64) {
	p.mu.Lock()
	p.units, p.bytes = units, bytes
	p.mu.Unlock()
}

// Write writes other output to stderr while the work runs, such as log lines, without breaking the bar.
func (p *progress) Write(b []byte) (int, error) {
	p.out.Lock()
	defer p.out.Unlock()
	if p.bars != nil {
		return p.bars.Write(b)
	}
	return p.err.Write(b)
}

// done removes the bar. Further calls do nothing.
func (p *progress) done() {
	p.once.Do(func() { close(p.stop) })
	<-p.over
}

func (p *progress) run() {
	defer close(p.over)
	wait := p.every
	if p.terminal {
		wait = barDelay
	}
	for {
		select {
		case <-p.stop:
			p.endBar()
			return
		case <-time.After(wait):
		}
		if p.terminal {
			p.drawBar()
			wait = 100 * time.Millisecond
		} else {
			p.printLine()
		}
	}
}

// printLine prints the state of the work, once it has begun.
func (p *progress) printLine() {
	if line := p.text(", "); line != "" {
		p.out.Lock()
		defer p.out.Unlock()
		_, _ = fmt.Fprintf(p.err, "emberfs: %s: %s\n", p.label(), line)
	}
}

// drawBar creates the bar when the work has begun, and moves it. The library redraws it several times a second.
func (p *progress) drawBar() {
	if p.bar == nil {
		if p.text("") == "" {
			return
		}
		bars := mpb.New(mpb.WithOutput(p.err))
		p.bar = bars.New(barScale+1, mpb.BarStyle(), // never reached: only done ends the bar
			mpb.BarFillerMiddleware(p.onlyKnown),
			mpb.BarWidth(24),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return p.label() + "  " })),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.text("  ") })))
		p.out.Lock()
		p.bars = bars
		p.out.Unlock()
	}
	p.mu.Lock()
	f := p.fraction()
	p.mu.Unlock()
	p.bar.SetCurrent(int64(f * barScale))
}

// onlyKnown leaves the bar out if nobody knows how long it would be.
func (p *progress) onlyKnown(bar mpb.BarFiller) mpb.BarFiller {
	return mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		if s.Current == 0 {
			return nil
		}
		return bar.Fill(w, s)
	})
}

func (p *progress) endBar() {
	p.out.Lock()
	defer p.out.Unlock()
	if p.bars != nil {
		p.bar.Abort(true)
		p.bars.Wait()
		p.bars = nil
	}
}

// fraction returns which part is done, from 0 to 1, or 0 if the total is not known. p.mu must be held.
func (p *progress) fraction() float64 {
	done, whole := float64(p.units)*unitCost, float64(p.ofUnits)*unitCost
	if p.ofBytes > 0 {
		done, whole = done+float64(p.bytes), whole+float64(p.ofBytes)
	}
	if whole <= 0 {
		return 0
	}
	return min(1, done/whole)
}

// text returns the figures, or "" before there are any.
func (p *progress) text(sep string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.units == 0 && p.bytes == 0 {
		return ""
	}
	var out []string
	if p.ofUnits > 0 {
		out = append(out, humanize.Comma(p.units)+" of "+count(p.ofUnits, p.unit))
	} else {
		out = append(out, count(p.units, p.unit))
	}
	took := time.Since(p.started)
	if p.bytes > 0 {
		done := size(p.bytes)
		if p.ofBytes > 0 {
			done += " of " + size(p.ofBytes)
		}
		out = append(out, done)
	}
	if p.bytes > p.units*unitCost {
		out = append(out, size(int64(float64(p.bytes)/took.Seconds()))+"/s")
	} else { // for many small files the number says more
		out = append(out, count(int64(float64(p.units)/took.Seconds()), p.unit)+"/s")
	}
	if f := p.fraction(); f > 0 {
		out = append(out, fmt.Sprintf("%d%%", int(f*100)))
		// Where big units take the time, and nobody knows how big the rest is, their number says nothing of it.
		if p.ofBytes > 0 || p.bytes <= p.units*unitCost {
			left := time.Duration(float64(took) * (1 - f) / f)
			out = append(out, left.Round(time.Second).String()+" left")
		}
	}
	return strings.Join(out, sep)
}
