package main

import (
	"slices"
	"time"
)

// leastAge is the shortest allowed age and tick; with a shorter one files would move all the time.
const leastAge = int64(100 * time.Millisecond)

// settings returns the table. It is a function because package-level mutable state is not allowed here.
// emberfs-settings(5) and the flags of `emberfs mount` are both made from it, so that they agree.
func settings() []setting {
	return slices.Concat(volumeSettings(), noticeSettings(), remoteSettings(), processSettings())
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
		{name: "source", kind: kindString, help: "path or address of a git repository, as SOURCE",
			manual: `This is the path or the address of a git repository, as the argument SOURCE of emberfs-mount(8),
				which wins over it. A git:// source, of git-daemon(1), can only be read: it needs the mount option
				ro. It is neither encrypted nor authenticated, so whoever is on the network can see it, and can put
				other contents in its place.`},
		{name: "branch", kind: kindString, def: "main", help: "the volume's branch",
			manual: `This is the branch of the repository that the volume is on. Names that begin with
				emberfs-live, emberfs-side, emberfs-part or emberfs-lease are refused, because EmberFS uses them
				itself.`},
		{name: "init", kind: kindBool, def: "off",
			help: "begin a volume where SOURCE has other branches but not this one, or is a path that does not exist",
			manual: `A new volume begins on a branch that the repository does not have yet. Without this only
				an empty repository lets a volume begin, so that a branch with a typing error in its name, or one
				that somebody deleted, is not taken for an empty volume. Where SOURCE is a path that does not exist,
				and nothing of the volume is on this machine, a bare repository is made there. The setting changes
				nothing where the branch exists.`},
		{name: "offline", kind: kindChoice, def: "allow", choices: []string{"allow", "refuse"},
			help: "what a mount does when SOURCE cannot be reached and the volume is on this machine",
			manual: `This says what a mount does when SOURCE cannot be reached within 10 seconds, or refuses, and
				an earlier mount left the volume on this machine. With "allow" it mounts what is here, and says that
				this may be older than the remote and how old it is; the daemon then tries the remote by itself until
				it answers. With "refuse" the mount fails. Where nothing is on this machine, it fails in any case.`},
		{name: "require_complete", kind: kindBool, def: "off",
			help: "do not mount where something of the last session is missing, or may be",
			manual: `Each mount finds out whether the session before it left everything here, and says COMPLETE, or
				INCOMPLETE and what is known to be missing. With this setting an INCOMPLETE volume is not mounted: the
				mount fails with exit code 32 and changes nothing. Where it is not known, as with a repository that only
				git clients have written, the mount goes on.`},
		{name: "announce_delay", kind: kindDuration, def: "10s", min: leastAge, none: true,
			help: "how long after the first change of a session the remote is told of the session; none: never",
			manual: `This long after the first change of a session that nothing has been committed of, a commit that
				changes no file tells the remote that there is a session, so that the next machine can say INCOMPLETE if
				this one is lost before its first backup. It lies on the live branch and goes with the next backup. A
				session that changes nothing says nothing. Where there is no commit yet, or a git client made the last
				one, the first backup comes after this time instead. With none or 0 a machine that is lost before its
				first backup leaves no trace.`},
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
		{name: "max_at_risk", kind: kindBudget, def: "none",
			help: "what may be lost with the machine, as a time, a size or both: backups begin early enough, and " +
				"writers are slowed",
			manual: `This is how much may be lost when the machine goes away: changes up to this age, bytes up to
				this size, or both, such as 60s, 100MB or 60s,100MB. With a SOURCE it counts what the SOURCE lacks, and
				without one what no commit has; bytes are counted as programs write them. A backup begins early enough
				that what is at risk stays within the bounds at the speed of the last backups, which "emberfs status"
				shows as the time that it takes to save what is at risk. Where nothing changes nothing is committed,
				and backup_interval remains the longest time between two backups.

				Where programs write faster than the backup can follow, their writes wait: up to a second for each
				128 KiB of a write, and 10 seconds at most, so that they go on in any case. Reads never wait, nor do
				calls that only make, rename or remove names. A program that is killed ends at once. While the SOURCE
				cannot be reached nobody is slowed: the commits go on, what is at risk grows past the bounds, and
				"emberfs status" and the log say so. The same holds for bounds that are too small for the link. In -o
				the two are joined by a plus sign, or the value is quoted, because a comma ends an option there.`},
		{name: "risk_warn", kind: kindBudget, def: "none",
			help: "what may be at risk, as a time, a size or both, until the log and status warn of it",
			manual: `When what is at risk grows past this, the daemon logs a warning, once each time, and "emberfs
				status" shows it among the errors as long as it is so. The value is written as that of max_at_risk. It
				changes nothing about when backups are made.`},
		{name: "push_min_interval", kind: kindDuration, none: true,
			help:    "least time between two pushes that nobody waits for; none: each commit is pushed at once",
			defHelp: "10s where SOURCE is on the network, none for a path",
			manual: `Between the beginnings of two pushes that nobody waits for, at least this much time passes.
				Pushes for "emberfs sync", for the end of a mount and for the rule "fsync: remote" begin at once.`},
		{name: "push_max", kind: kindSize, def: "1GiB", min: 1 << 20,
			help: "size over which a push goes in parts",
			manual: `A push that would be larger than this goes in parts, each of which is a valid state of the
				branch. Servers have limits for the size of a push.`},
		{name: "fsync_timeout", kind: kindDuration, def: "30s", min: leastAge,
			help: "how long fsync waits for the remote under the rule fsync: remote, before it fails with EIO",
			manual: `Under the rule "fsync: remote", fsync(2) fails with EIO when the remote has not acknowledged
				the file for this long. The file is durable on this machine all the same, and a later fsync returns
				success once the remote has it.`},
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
			defHelp: "30s after SIGTERM and for emberfs umount; umount(8) and services wait until it is done",
			manual: `The final backup takes at most this long. Where that is too short at the speed of the last
				backups, critical files are saved first, and then those files whose last change is oldest, in one or
				more commits that are whole; programs that still write are slowed. What is not done by then is listed
				in the receipt and kept in the state directory for the next mount. The default of 30s also counts
				after SIGINT. A mount that disappears without a command waits until the backup is done, and so does a
				service of Type=notify, which systemd gives more time as long as the daemon asks for it.`},
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

// remoteSettings say how a SOURCE on another host is reached.
func remoteSettings() []setting {
	return []setting{
		{name: "remote_user", kind: kindString, help: "user on SOURCE's host, where SOURCE names none",
			defHelp: "ssh's own for ssh, x-access-token with a token",
			manual: `This is the name of the user on the host of SOURCE, where SOURCE names none. Over ssh it is the
				user to log in as, which is git at most forges. Over https it goes with the token: GitHub, GitLab, Gitea
				and Azure take any name with a personal token. A deploy token of GitLab needs its own name, an OAuth
				token of GitLab the name oauth2, and an access token of Bitbucket the name x-token-auth.`},
		{name: "token", kind: kindSecret, help: "where the token or password for https is: env:NAME, file:PATH or " +
			"credential:NAME",
			defHelp: "$EMBERFS_TOKEN, credential:emberfs-token, git's helpers, ~/.netrc",
			manual: `This says where the token or password for https is, and is never the token itself. With
				env:NAME it is in an environment variable of the daemon, with file:/PATH in a file, and with
				credential:NAME in a file of $CREDENTIALS_DIRECTORY, which systemd makes for LoadCredential=. A file must
				belong to the user or to root and have mode 0600 or stricter. It is read at each use, so that a token
				that was replaced works without a restart. The environment variable EMBERFS_TOKEN is no way to give
				this setting: it is the token itself.

				The token goes as the password of HTTP's Basic scheme, with the name of remote_user, or as Bearer to a
				server that offers no Basic. Over https it goes with the first request, and over http only to a server
				that asks for it. It is never sent to another host or port than that of SOURCE, wherever a redirect
				leads. With a token from here, from EMBERFS_TOKEN or from systemd nobody else is asked for one;
				otherwise git's credential helpers are, and then ~/.netrc, which must have mode 0600 too.`},
		{name: "tls_ca", kind: kindPath, help: "file of the certificates that https servers are checked by",
			defHelp: "git's http.sslCAInfo, or the system's",
			manual: `The certificates of https servers are checked by those in this file (PEM), and not by those of
				the system.`},
		{name: "tls_cert", kind: kindPath, help: "file of the client certificate for https",
			defHelp: "git's http.sslCert",
			manual: `This file has the client certificate (PEM) for https servers that want one. It is read at each
				connection.`},
		{name: "tls_key", kind: kindPath, help: "file of the client certificate's key",
			defHelp: "git's http.sslKey, or the file of tls_cert",
			manual: `This file has the key (PEM, without a passphrase) of the client certificate. It must belong to the
				user or to root and have mode 0600 or stricter.`},
		{name: "proxy", kind: kindProxy, help: "proxy for http and https, such as http://HOST:PORT",
			defHelp: "git's http.proxy, or the variables https_proxy, http_proxy, all_proxy and no_proxy",
			manual: `Requests to http and https servers go through this proxy, which is named as http://HOST:PORT,
				https://HOST:PORT or socks5://HOST:PORT. One that needs a password is named in git's http.proxy or in
				the environment variable https_proxy: here a password is refused, because process lists would show
				it.`},
		{name: "ssh_key", kind: kindKey, help: "file of the private key for ssh, or env:NAME or credential:NAME",
			defHelp: "credential:emberfs-ssh-key, or ssh's own",
			manual: `ssh uses this private key and those that its own configuration names, but none that only an agent
				has. The value is the path of a file, or says as the setting token does where the key is. A file must
				belong to the user or to root and have mode 0600 or stricter. The key must have no passphrase. One that
				is in no file, or lacks its last newline, lies as a file of mode 0600 in the state directory while the
				volume is mounted.`},
		{name: "known_hosts", kind: kindPath, help: "file of the keys of ssh hosts",
			defHelp: "credential:emberfs-known-hosts, or ssh's own",
			manual:  `ssh looks here, and in the file of the system, for the keys of hosts (sshd(8)).`},
		{name: "host_key_check", kind: kindChoice, def: "yes", choices: []string{"yes", "accept-new"},
			help: "what ssh does with a host that it does not know: refuse it, or remember its key",
			manual: `With yes ssh refuses a host whose key it does not know. With accept-new it trusts such a host the
				first time and remembers its key. A key that has changed is refused in both cases.`},
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
			manual: `The daemon does not go into the background. It tells systemd (Type=notify) when it is ready,
				what it does, that it is alive, which it is as long as the volume answers (WatchdogSec=), and, while
				it starts or stops, that it needs more time. The flag is also called -f.`},
	}
}
