package tiers

// Invalidator tells the kernel to forget cached state; fs implements it over FUSE notifications. No call waits for a
// request. All but InvalAttr are queued.
type Invalidator interface {
	InvalEntry(dir uint64, name string)
	InvalInode(id uint64)
	// InvalAttr invalidates attributes only, before it returns.
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
