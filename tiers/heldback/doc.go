// Package heldback remembers what a commit has of a file and warm has not: what this machine could not make, or may not
// show (an attribute that is too big for its disk, an owner that it may not give, a device, a submodule), and what
// would be in the daemon's own way there (flags such as immutable). Commits carry it over as it is until somebody
// changes that very thing, so the next machine gets it.
//
// A Table is a file beside warm, of lines of JSON that are only ever appended to; each start that finds more dead lines
// than living ones writes it anew. What is held back belongs to an inode of warm, by its number and its birth time, and
// so follows it through renames. Its path is for people, and finds the inode again where a state directory was copied.
// A line is
//
//	{"ino":N,"gen":N,"root":true}                      the first line: warm's root
//	{"ino":N,"gen":N,"path":P,"what":[...],"mark":N,"value":V}  what is held back of an inode; replaces what was
//	{"ino":N,"gen":N,"gone":true}                      nothing any more
//	{"ino":N,"gen":N,"moved":true,"path":P}            it has another path; "/": one that nobody knows,
//	                                                   for it lost one of several names
//	{"from":P,"path":P}                                a directory was renamed
//
// with path64 and from64, in base64, for paths that are not UTF-8. What V is the caller knows alone.
//
// A line that was being written when the machine stopped is no line. Any other that cannot be read is an error of Open:
// without it the next commit would take what was held back for removed.
package heldback
