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

	Source string // where the volume comes from, for status only
	Branch string

	MemoryLimit     int64 // bytes for hot, inode table (a fifth) and Go heap together
	FlushInterval   time.Duration
	BackupInterval  time.Duration
	PushMinInterval time.Duration // between pushes that nobody waits for
	// OfflineRefuse lets Open fail with *OfflineError where the volume cannot be brought up to the remote.
	OfflineRefuse bool
	// ContactWait is how long Open waits for the remote's first answer where there is a volume to go on with; 0: 10 s.
	ContactWait time.Duration
	// RequireComplete lets Open fail with *IncompleteError where the session before this one was incomplete.
	RequireComplete bool
	// AnnounceDelay is how long after a session's first change the remote is told that there is a session, unless a
	// commit comes before; 0: it is not told.
	AnnounceDelay time.Duration
	// FsyncTimeout is how long an fsync waits for the remote under `fsync: remote`; 0: until the first push for it
	// ends.
	FsyncTimeout  time.Duration
	MaxAtRisk     Budget        // what may be at risk; a backup begins early enough for that, and writers are slowed
	RiskWarn      Budget        // over it status and the log say so
	CriticalDelay time.Duration // from close or fsync of a critical file to the commit that has it
	Tiering       bool          // false: all files are brought to warm when the volume is opened

	HotAge       time.Duration // after so long without use a file's blocks leave hot
	WarmAge      time.Duration // after so long without use a clean file leaves warm; 0: never by age
	TierInterval time.Duration // how often ages are looked at; 0: never
	WarmLimit    int64         // bytes of warm over which clean files are evicted, least recently used first; 0: none
	WarmReserve  int64         // bytes to keep free on warm's file system, by evicting files
	Prefetch     bool          // after a restore, bring back first what the last session opened first

	Rules *rules.Set // rules of the settings file, in place of the volume's own; nil: none
	// AcceptRules: rules that keep data out of commits (ignore, memory) are obeyed even if the repository brought them.
	AcceptRules bool

	MemoryClassLimit int64 // bytes for all files of class memory; 0: DefaultMemoryClass

	// Untrusted: restore applies no security.*, trusted.*, suid, sgid, devices or foreign owners.
	Untrusted bool

	Atime Atime // the mount's options for access times

	// Progress is called during the restore when the volume is opened; may be nil.
	Progress restore.Progress

	// Fail is called at each of Steps, if set. It is for tests of crash safety.
	Fail func(step string) error
}

// Atime is how a mount keeps access times.
type Atime struct {
	Never  bool // noatime
	Strict bool // strictatime: every read that reaches the daemon moves the atime
	NoDirs bool // nodiratime
}

// AtimeOf reads the words of mount(8) for access times. Without one of them it returns relatime.
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
