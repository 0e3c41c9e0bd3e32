package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// maxLog is the size in bytes above which a mount moves the daemon's own log file aside; one old file is kept.
const maxLog = 1 << 20

// newLogger returns a logger that writes to w in the configured format. With journal each line begins with its syslog
// priority, which systemd removes, and has no time, which systemd adds.
func newLogger(c *config, w io.Writer, journal bool) *logrus.Logger {
	var f logrus.Formatter
	switch {
	case c.LogFormat == "json":
		f = &logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano}
	case journal:
		f = &logrus.TextFormatter{DisableColors: true, DisableTimestamp: true}
	default:
		f = &logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "2006-01-02T15:04:05.000Z07:00"}
	}
	log := logrus.New()
	log.SetOutput(w)
	log.SetLevel(logLevel(c.LogLevel))
	log.SetFormatter(&lineFormatter{inner: f, priority: journal})
	return log
}

// lineFormatter removes credentials from every line and adds the journal's priority.
type lineFormatter struct {
	inner    logrus.Formatter
	priority bool
}

func (f *lineFormatter) Format(e *logrus.Entry) ([]byte, error) {
	line, err := f.inner.Format(e)
	if err != nil {
		return nil, err
	}
	if text := string(line); strings.Contains(text, "://") {
		line = []byte(redact(text))
	}
	if f.priority {
		line = append([]byte(priority(e.Level)), line...)
	}
	return line, nil
}

// priority returns the syslog severity of a level as sd-daemon(3) spells it.
func priority(level logrus.Level) string {
	switch level {
	case logrus.PanicLevel, logrus.FatalLevel:
		return "<2>"
	case logrus.ErrorLevel:
		return "<3>"
	case logrus.WarnLevel:
		return "<4>"
	case logrus.InfoLevel:
		return "<6>"
	}
	return "<7>"
}

// isJournal reports whether f is the journal's stream, which systemd names in JOURNAL_STREAM as device:inode.
func isJournal(f *os.File, getenv func(string) string) bool {
	dev, ino, ok := strings.Cut(getenv("JOURNAL_STREAM"), ":")
	if !ok {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	d, err1 := strconv.ParseUint(dev, 10, 64)
	i, err2 := strconv.ParseUint(ino, 10, 64)
	return err1 == nil && err2 == nil && d == st.Dev && i == st.Ino
}

// openLog opens a log file for appending. If rotate is true, a file over maxLog is renamed to PATH.1 first.
func openLog(path string, rotate bool) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && rotate && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("log file: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	return f, nil
}
