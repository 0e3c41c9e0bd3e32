// Package heldback remembers what a commit has of a file and warm has not: what this machine cannot make or may not
// show (an attribute that is too big for its disk, an owner that it may not set, a device, a submodule), and what would
// get into the daemon's way (flags such as immutable). Commits carry such things over unchanged until somebody changes
// them, so that the next machine gets them.
//
// A Table is kept in a file beside warm. Its lines of JSON are only ever appended; a start that finds more dead lines
// than living ones rewrites it. What is held back belongs to an inode of warm, which is identified by its number and
// birth time, and so follows the inode through renames. The path in a line is for people, and serves to find the inode
// again if a state directory was copied. The lines are:
//
//	{"ino":N,"gen":N,"root":true}                      the first line: warm's root
//	{"ino":N,"gen":N,"path":P,"what":[...],"mark":N,"value":V}  what is held back of an inode; replaces earlier lines
//	{"ino":N,"gen":N,"gone":true}                      nothing is held back of the inode any more
//	{"ino":N,"gen":N,"moved":true,"path":P}            the inode has another path; "/" stands for an unknown one:
//	                                                   it had several names and lost the known one
//	{"from":P,"path":P}                                a directory was renamed
//
// Paths that are not UTF-8 are in path64 and from64, in base64. Only the caller knows what V means.
//
// An incomplete last line, which was being written when the machine stopped, is ignored. Any other line that cannot be
// read makes Open fail: without it, the next commit would take what was held back for removed.
package heldback
