package odb

// Steps are the names that Options.Fail is called with.
var Steps = []string{
	"link.look", "link.pack", "link.index", "link.loose",
	"index.receive", "index.resolve",
	"publish.seal", "publish.index", "publish.keep", "publish.sync", "publish.rename-pack", "publish.rename-index",
	"publish.sync-dir", "publish.done",
	"ref.lock", "ref.write", "ref.rename", "ref.sync-dir", "ref.unlock",
	"release.keep",
	"rebuild.index", "rebuild.write", "rebuild.rename", "rebuild.sync-dir",
	"consolidate.merge", "consolidate.age", "consolidate.remove-midx", "consolidate.remove-index",
	"consolidate.remove-pack",
	"consolidate.sync-dir",
	"gc.mark", "gc.check", "gc.remove-loose",
	"verify.read", "verify.release",
	"rebuild.salvage", "rebuild.quarantine", "rebuild.release",
}
