// Package cold defines what a volume asks of the repository that keeps its files for good: the interface Cold, and the
// types that describe a commit. Package backup implements it over git. Package tiers and the readers of a volume that
// is not mounted use it.
//
// It imports no other package of EmberFS, so that neither side has to know the other.
package cold
