// Package inspect reads a volume that nobody has mounted, or looks beside the daemon that has: `emberfs check`, `diff`
// and `restore` of what no commit has are made of it. It reads the state directory (package warm) and believes its
// records as far as the next start would; of the repository it knows package cold alone. But for SetHead and
// DropRecords, which repair, it writes nothing.
package inspect
