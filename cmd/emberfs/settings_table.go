package main

import "time"

// leastAge is the shortest allowed age and tick; with a shorter one files would move all the time.
const leastAge = int64(100 * time.Millisecond)

// settings returns the table. It is a function because package-level mutable state is not allowed here.
// emberfs-settings(5) and the flags of `emberfs mount` are both made from it, so that they agree.
func settings() []setting {
	return append(volumeSettings(), processSettings()...)
}

// volumeSettings say what the volume is, what it may take, and when its files move.
func volumeSettings() []setting {
	return []setting{
		{name: "state", kind: kindPath, help: "state directory of the volume",
			defHelp: "one per SOURCE and branch below /var/lib/emberfs, or $XDG_STATE_HOME/emberfs for a user",
			manual: `This is the state directory of the volume: everything that this machine has of the volume
				lies there. A volume without a SOURCE has one per mountpoint by default.`},
		{name: "config", kind: kindPath, help: "YAML file with settings, and rules",
			manual: `This YAML file has settings, one "name: value" a line, and under the key "rules" a list of
				rules, which emberfs-rules(5) describes. A settings file cannot name another one.`},
		{name: "source", kind: kindString, help: "path of a bare git repository, as SOURCE",
			manual: `This is the path of a bare git repository, as the argument SOURCE of emberfs-mount(8),
				which wins over it. A git:// source, of git-daemon(1), can only be read: it needs the mount option
				ro. It is neither encrypted nor authenticated, so whoever is on the network can see it, and can put
				other contents in its place.`},
		{name: "branch", kind: kindString, def: "main", help: "the volume's branch",
			manual: `This is the branch of the repository that the volume is on. Names below emberfs-live/ and
				emberfs-side/ are refused, because EmberFS uses them itself.`},
		{name: "memory_limit", kind: kindSize, def: "100MB", min: 48 << 20,
			help:   "memory for the hot tier, inodes and the daemon's heap",
			manual: `The hot tier, the inodes and the heap of the daemon together take at most this much memory.`},
		{name: "memory_class_limit", kind: kindSize, def: "100MB", min: 1 << 20,
			help: "memory for the contents of directories of class memory",
			manual: `The contents of all directories of class memory together take at most this much, and there
				is at most one file or directory in them for each 4 KiB of it. A program that wants more gets
				ENOSPC. A mount that takes over what a killed daemon left in memory changes the limit.`},
		{name: "chunk_threshold", kind: kindSize, def: "8MiB", min: 128 << 10,
			help: "size over which a file is stored in chunks, so that a change of it is a small commit",
			manual: `A file over this size is stored in chunks, so that a change of it is a small commit. A file
				in chunks becomes one object again when it is smaller than half of it.`},
		{name: "flush_interval", kind: kindDuration, def: "5m", min: int64(time.Second),
			help:   "how often warm is made durable (fsync does it at once)",
			manual: `The daemon makes the warm tier durable this often. fsync(2) does it at once for its file.`},
		{name: "backup_interval", kind: kindDuration, def: "30m", min: int64(time.Second),
			help: "how often everything that changed is committed and pushed",
			manual: `The daemon commits everything that changed, and pushes it where the volume has a source,
				this often. A rule may set another time for the files that it matches.`},
		{name: "critical_delay", kind: kindDuration, def: "2s", min: leastAge,
			help: "how long after close or fsync a critical file is committed and pushed",
			manual: `A critical file is committed, and pushed where the volume has a source, this long after it
				was closed or fsynced. A rule may set another time for the files that it matches.`},
		{name: "hot_age", kind: kindDuration, def: "5m", min: leastAge,
			help:   "after this long without use a file's blocks leave memory first",
			manual: `The blocks of a file that nobody used for this long are the first to leave memory.`},
		{name: "warm_age", kind: kindDuration, def: "30m", min: leastAge, none: true,
			help: "after this long without use a file that is backed up leaves warm; none: not by age",
			manual: `The bytes of a file that nobody used for this long leave the warm tier, if the file is
				closed, is unchanged since the last commit, and that commit is pushed where the volume has a source.
				With none or 0 no file leaves by its age. A rule may set another time for the files that it matches.`},
		{name: "tier_interval", kind: kindDuration, def: "5m", min: leastAge, none: true,
			help: "how often files move down by age; none: never",
			manual: `The daemon looks this often for files that are old enough to leave memory or the warm tier.
				With none or 0 it never does.`},
		{name: "warm_limit", kind: kindSize, def: "none", min: 1 << 20, none: true,
			help: "bytes in warm over which files that are backed up leave it earlier, the least recently used first",
			manual: `When the warm tier has more bytes than this, files that are backed up leave it before they
				are old enough, the least recently used first.`},
		// This is small compared to any disk, and enough for a writer at full disk speed until the free space is
		// checked again.
		{name: "warm_reserve", kind: kindSize, def: "64MiB", min: 1 << 20, none: true,
			help: "bytes to keep free on warm's file system by the same means",
			manual: `When the file system of the warm tier has less than this free, files that are backed up
				leave it before they are old enough, the least recently used first. With none or 0 the disk may fill
				up.`},
		{name: "prefetch", kind: kindBool, def: "on", help: "after a restore bring what the last session used first",
			manual: `After a restore the daemon brings, in the background, the files that the last session used
				first.`},
		{name: "deadline", kind: kindDuration, min: int64(100 * time.Millisecond),
			help:    "longest time for the final backup",
			defHelp: "30s after SIGTERM and for emberfs umount; umount(8) waits until it is done",
			manual: `The final backup takes at most this long. What is not done by then is listed in the receipt
				and kept in the state directory for the next mount. The default of 30s also counts after SIGINT; a
				mount that disappears without a command waits until the backup is done.`},
		{name: "tiering", kind: kindBool, def: "on",
			help: "let files leave warm; off: they stay, and a restore brings all bytes at mount",
			manual: `Files may leave the warm tier when the cold tier has them. When it is off, all files stay
				in the warm tier, and a restore brings all bytes before the mount returns. The mount of a plain user
				has no tiering.`},
		{name: "kernel_cache", kind: kindBool, def: "on",
			help: "let the kernel cache; off: every call reaches the daemon (for tests)",
			manual: `The kernel may keep names, attributes and contents. When it is off, every call reaches the
				daemon, which is for tests.`},
		{name: "accept_rules", kind: kindBool, def: "off",
			help: "obey rules that keep files out of commits also where the repository brought them",
			manual: `The daemon also obeys those rules that keep files out of commits ("ignore" and the class
				memory) and that came with the repository. When it is off, the daemon withholds them until they
				are written on this machine.`},
	}
}

// processSettings say whom the volume serves and as whom, and what the daemon does with itself.
func processSettings() []setting {
	return []setting{
		{name: "allow_other", kind: kindBool, help: "let other users in", defHelp: "on for root, off for a user",
			manual: `Other users may use the mount, and the kernel checks their permissions. A user who is not
				root needs the line user_allow_other in /etc/fuse.conf for it.`},
		{name: "nonempty", kind: kindBool, def: "off", help: "mount over a directory that is not empty",
			manual: `The volume may be mounted over a directory that is not empty, which hides what is in that
				directory.`},
		{name: "untrusted", kind: kindBool, def: "off",
			help: "restore no suid, devices, foreign owners, security.* or trusted.* attributes",
			manual: `The restore leaves out suid and sgid bits, devices, owners other than the user, and
				attributes named security.* or trusted.*. It is meant for repositories of other people. Commits keep
				what is left out.`},
		{name: "user_name", kind: kindString, def: "emberfs", help: "author name of commits",
			manual: `This is the name of the author of commits.`},
		{name: "user_email", kind: kindString, def: "emberfs@localhost", help: "author address of commits",
			manual: `This is the mail address of the author of commits.`},
		{name: "log_level", kind: kindChoice, def: "info", choices: []string{"error", "warn", "info", "debug"},
			help:   "how much the daemon says",
			manual: `The daemon logs messages of this level and of those that are more serious.`},
		{name: "log_format", kind: kindChoice, def: "text", choices: []string{"text", "json"},
			help:   "format of log lines",
			manual: `This is the format of the lines of the log.`},
		{name: "log_file", kind: kindPath, help: "where the background daemon writes its log",
			defHelp: "emberfs.log in the state directory, or the journal under systemd",
			manual:  `The daemon in the background writes its log to this file.`},
		{name: "foreground", kind: kindBool, def: "off", help: "do not go into the background",
			manual: `The daemon does not go into the background. It tells systemd when it is ready and when it
				stops (Type=notify). The flag is also called -f.`},
	}
}
