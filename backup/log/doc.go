// Package log reads the history of a repository for people: the commits of a volume, or those that changed a path
// (Reader.Log), what differs between two commits or between a commit and the volume (Diff), what can be restored
// (Reader.Points), and what a revision means (Reader.Resolve). It changes nothing.
package log
