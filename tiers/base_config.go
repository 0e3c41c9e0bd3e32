package tiers

import (
	"time"

	"github.com/sirupsen/logrus"

	"emberfs/tiers/cold"
	"emberfs/tiers/restore"
	"emberfs/tiers/rules"
)

// Config is what a Volume needs to open.
type Config struct {
	State string // the state directory, absolute; 0700
	Cold  cold.Cold
	Log   logrus.FieldLogger

	Source string // for status only
	Branch string

	MemoryLimit    int64 // bytes: hot, inode table (a fifth) and Go heap together
	FlushInterval  time.Duration
	BackupInterval time.Duration
	CriticalDelay  time.Duration // from close or fsync of a critical file to the commit that has it
	Tiering        bool          // false: every file is in warm, restored ones as soon as the volume is open

	HotAge       time.Duration // after so long without use a file's blocks leave hot
	WarmAge      time.Duration // after so long without use a clean file leaves warm; 0: never by age
	TierInterval time.Duration // how often ages are looked at; 0: never
	WarmLimit    int64         // bytes of warm over which clean files leave earlier, least recently used first; 0: none
	WarmReserve  int64         // bytes that are to stay free on warm's file system, by the same means
	Prefetch     bool          // after a restore bring what the last session opened first

	Rules *rules.Set // of the settings file: instead of the volume's own; nil: none there
	// Obey rules that keep data out of commits (ignore, memory) also where the repository brought them.
	AcceptRules bool

	MemoryClassLimit int64 // bytes that files of class memory may take together; 0: DefaultMemoryClass

	// Untrusted: restore applies no security.*, trusted.*, suid, sgid, devices or foreign owners.
	Untrusted bool

	Atime Atime // as the mount's options say

	// Progress is told of the restore when the volume is opened; may be nil.
	Progress restore.Progress

	// Fail, where set, is called at each of Steps: for tests of crash safety.
	Fail func(step string) error
}

// Atime is how a mount keeps access times.
type Atime struct {
	Never  bool // noatime
	Strict bool // strictatime: with every read that reaches the daemon
	NoDirs bool // nodiratime
}

// AtimeOf reads mount(8)'s words; without one of them it is relatime.
func AtimeOf(words []string) (a Atime) {
	for _, w := range words {
		switch w {
		case "noatime":
			a.Never, a.Strict = true, false
		case "strictatime":
			a.Never, a.Strict = false, true
		case "relatime":
			a.Never, a.Strict = false, false
		case "nodiratime":
			a.NoDirs = true
		}
	}
	return a
}

// DefaultMemoryClass is the default of Config.MemoryClassLimit, in bytes.
const DefaultMemoryClass = 100_000_000
