// Package powercut makes the images that a power cut may leave of a disk, from a log of what was done to it
// (integration/blocklog).
//
// The disk it stands for has a volatile write cache: a flush that came back makes all writes before it durable. Of the
// writes after the last such flush any may have reached the platter or not, in any order, and one that was under way
// may be there in part, torn between sectors. Within a sector, of a size that the caller chooses, nothing tears.
package powercut
