// Package inspect reads a volume that is not mounted, or works beside the daemon of one that is. `emberfs check`, and
// `diff` and `restore` of what no commit has, use it. It reads the state directory by package warm, and believes
// records as far as the next start would. Of the repository it only knows package cold. It writes nothing, except for
// SetHead and DropRecords, which are for repairs.
package inspect
