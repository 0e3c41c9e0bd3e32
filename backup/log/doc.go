// Package log reads the history of a repository for people: the commits of a volume and those that changed a path
// (Reader.Log), what was changed between two of them, or in the volume since (Diff), what can be restored
// (Reader.Points), and what a revision means (Reader.Resolve). It changes nothing.
package log
