package wire

import (
	"bytes"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	// maxMessages is how many bytes of the other side's messages are kept for errors.
	maxMessages = 8 << 10
	// maxWords is how many bytes of them an error, a log or the status shows.
	maxWords = 1 << 10
)

// messages keeps the last messages of the other side for an error. It is safe for concurrent use.
type messages struct {
	mu struct {
		sync.Mutex
		buf []byte
	}
}

func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(p)
	p = p[max(0, len(p)-maxMessages):]
	if over := len(m.mu.buf) + len(p) - maxMessages; over > 0 {
		m.mu.buf = m.mu.buf[:copy(m.mu.buf, m.mu.buf[over:])]
	}
	m.mu.buf = append(m.mu.buf, p...)
	return n, nil
}

// String is what was said last, as Clean returns it.
func (m *messages) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cleanBytes(m.mu.buf)
}

// Clean makes words of another host fit for terminals and logs: the lines are joined by "; ", and control characters,
// invalid bytes and what changes the direction or the look of the text around it are removed. Of more than 1 KiB the
// end is kept.
func Clean(text string) string { return cleanBytes([]byte(text)) }

func cleanBytes(text []byte) string {
	lines := bytes.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	var out []string
	for _, l := range lines {
		s := strings.TrimSpace(strings.Map(visible, string(l)))
		if s != "" {
			out = append(out, s)
		}
	}
	s := strings.Join(out, "; ")
	const cut = "... "
	if len(s) > maxWords {
		s = s[len(s)-maxWords+len(cut):]
		for s != "" && !utf8.RuneStart(s[0]) {
			s = s[1:]
		}
		s = cut + s
	}
	return s
}

// visible drops the runes that are no letters, marks, digits, punctuation, symbols or spaces. All control characters
// are among them, those below U+00A0 as well, and the overrides of bidirectional text.
func visible(r rune) rune {
	if r == utf8.RuneError || !unicode.IsGraphic(r) {
		return -1
	}
	return r
}

// ServerError is a refusal in the other side's own words.
type ServerError struct {
	Words string // as Clean returns them
}

func (e *ServerError) Error() string {
	if e.Words == "" {
		return "the other side refuses, without a reason"
	}
	return "the other side says: " + e.Words
}
