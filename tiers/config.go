package tiers

import (
	"time"

	"github.com/sirupsen/logrus"
)

// Config is what a Volume needs to open.
type Config struct {
	State string // the state directory, absolute; 0700
	Cold  Cold
	Log   logrus.FieldLogger

	Source string // for status only
	Branch string

	MemoryLimit    int64 // bytes: hot, inode table (a fifth) and Go heap together
	FlushInterval  time.Duration
	BackupInterval time.Duration
	Tiering        bool

	// Untrusted: restore applies no security.*, trusted.*, suid, sgid, devices or foreign owners.
	Untrusted bool

	// Progress is told of the restore when the volume is opened; may be nil.
	Progress Progress

	// Fail, where set, is called at each of Steps: for tests of crash safety.
	Fail func(step string) error
}
