package tiers

import "time"

// expireRound is the time between two backups of a volume whose machine is about to go away.
const expireRound = 5 * time.Second

// Expire says that this machine goes away at a time, with the zero value that it does not after all. From then on
// everything is backed up at once and then every few seconds, until the time has passed. It does not wait for that, and
// may be called at any time.
func (v *Volume) Expire(at time.Time) {
	if at.IsZero() {
		v.expires.Store(0)
		return
	}
	v.expires.Store(at.UnixNano())
	v.backupDue.Store(time.Now().UnixNano())
	select {
	case v.backupBy <- struct{}{}:
	default:
	}
}

// nextBackup returns how long after a backup that went well the next one is due, and why. The remote gets a backup
// before the end of the machine at once, whatever push_min_interval says.
func (v *Volume) nextBackup() (after time.Duration, reason string) {
	if at := v.expires.Load(); at != 0 && time.Now().UnixNano() < at {
		return expireRound, "notice"
	}
	return v.cfg.BackupInterval, "interval"
}
