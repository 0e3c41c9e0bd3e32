package backup

import "time"

// meterEvery is how often a meter reports.
const meterEvery = 100 * time.Millisecond

// meter tells Options.Progress how far a transfer with the remote is: at most every meterEvery, and when it ends. It is
// for one goroutine at a time.
type meter struct {
	report func(what string, objects, of, bytes int64) // nil: nobody wants to know
	what   string

	last               time.Time // when report was called; zero: not for this transfer
	objects, of, bytes int64
}

func newMeter(report func(what string, objects, of, bytes int64), what string) *meter {
	return &meter{report: report, what: what}
}

// at notes that so many objects, of all that there are (0: not known), and bytes of the pack have gone. It is cheap.
func (m *meter) at(objects, of, bytes int64) {
	if m.report == nil {
		return
	}
	m.objects, m.of, m.bytes = objects, of, bytes
	if now := time.Now(); now.Sub(m.last) >= meterEvery {
		m.last = now
		m.report(m.what, objects, of, bytes)
	}
}

// end reports the last figures, and then that nothing is under way any more, if there was anything.
func (m *meter) end() {
	if m.last.IsZero() {
		return
	}
	m.report(m.what, m.objects, m.of, m.bytes)
	m.last = time.Time{}
	m.report("", 0, 0, 0)
}
