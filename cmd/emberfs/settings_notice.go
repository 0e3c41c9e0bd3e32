package main

import "time"

// noticeSettings say how the volume learns that its machine goes away.
func noticeSettings() []setting {
	return []setting{
		{name: "notice", kind: kindNotice, def: "auto",
			help: "what says that this machine is about to go away: auto, aws, gcp, azure, file:PATH, " +
				"command:COMMAND or none",
			manual: `This names what says that the machine is about to go away. With auto that is the cloud that the
				machine is in, which its firmware names; elsewhere nothing is watched, and nobody is asked. With aws the
				daemon asks the instance metadata of EC2 (IMDSv2) every 5 seconds for the interruption of a spot
				instance and for the recommendation to rebalance. With gcp it waits for the metadata server to say that
				the instance is preempted, or ends for the maintenance of its host. With azure it asks for scheduled
				events (Preempt, Terminate, Reboot and Redeploy of this machine) every second. It does not acknowledge
				them, because Azure would then go ahead before the time; the notice_command can do that. With file:PATH
				a file that appears is the notice, as long as it is there; it is looked for every second. With
				command:COMMAND a shell command is run every 5 seconds, for at most 30; it is a notice while it exits 0,
				and none when it exits 1. The first line of the file, or of what the command prints, may say when the
				machine goes away: as a date, such as 2026-11-30T18:00:00Z, or as a time from then, such as 90s. A
				notice that does not say counts as one of 30 seconds. The signal SIGUSR1 is a notice whatever this
				setting is. A service is sent it by systemctl kill --kill-whom=main --signal=SIGUSR1; without the former
				git and ssh get it too, and end.

				After a notice everything is backed up at once, and then in short rounds until the machine goes away. A
				recommendation to rebalance leads to one backup. emberfs status shows the notice, and
				.emberfs/notice.json in the mount has it for programs. If the machine is still there a minute after its
				time, backups are as before.`},
		{name: "notice_command", kind: kindString, help: "shell command to run when there is a notice",
			manual: `This shell command is run for each notice. EMBERFS_NOTICE_WHAT has what happens, in one word
				(terminate, stop, hibernate, rebalance, preempt, maintenance, reboot, redeploy, file, command, signal or
				expire), EMBERFS_NOTICE_UNTIL when, as a date in UTC or empty if the machine may stay, and
				EMBERFS_MOUNTPOINT where the volume is mounted. It may take 60 seconds; then it is killed, and so it is
				as soon as the volume is unmounted, by itself too. The backup does not wait for it. The beginning of its
				output is logged, and its failure.`},
		{name: "expires_in", kind: kindDuration, min: int64(time.Second),
			help: "how long after the mount this machine goes away, where that is known",
			manual: `On a platform that ends its machines after a fixed time, this is how long after the mount the
				machine goes away. The last 2 minutes before it, or half of the time if that is less, are as after a
				notice. The time counts from each mount; expires_at gives it once for all.`},
		{name: "expires_at", kind: kindTime, help: "when this machine goes away, such as 2026-11-30T18:00:00Z",
			manual: `This is the date at which the machine goes away, as in RFC 3339, such as 2026-11-30T18:00:00Z. The
				last 2 minutes before it are as after a notice. Of this and expires_in the earlier counts.`},
	}
}
