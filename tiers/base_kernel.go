package tiers

// Invalidator tells the kernel to forget; fs implements it over FUSE notifications. Calls queue but for InvalAttr; none
// waits for a request.
type Invalidator interface {
	InvalEntry(dir uint64, name string)
	InvalInode(id uint64)
	// InvalAttr is about attributes alone, at once.
	InvalAttr(id uint64)
	// Prune asks the kernel to forget inodes that nobody uses; it does nothing where CanPrune is false.
	Prune(ids []uint64)
	CanPrune() bool
}

// SetInvalidator tells the volume how to reach the kernel's caches.
func (v *Volume) SetInvalidator(i Invalidator) {
	v.inval.Store(&i)
	if a := v.area.Load(); a != nil {
		a.inval.Store(&i)
	}
}
