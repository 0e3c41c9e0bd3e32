// Package cold says what a volume asks of the repository that keeps its files for good: the interface Cold, and the
// types in which a commit is described. Package backup implements it over git; package tiers, and the readers of a
// volume that is not mounted, use it.
//
// It is a leaf: it imports nothing of ours, so that neither side has to know the other.
package cold
