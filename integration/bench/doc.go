// The bench command measures an emberfs mount beside a native directory, go-fuse's tuned loopback
// (integration/loopback) and rclone, each on a fresh ext4 image, in interleaved rounds of one run, and prints medians,
// ratios and targets as Markdown. The machine's speed cancels out of the ratios; figures of different runs should not
// be compared.
//
// It needs root, loop devices, e2fsprogs, git and tar; rclone is left out where it is not installed.
package main
