// Package format is FORMAT.md in code: what the objects of a volume hold, and how they are read and written. Names in
// the user's tree, lines and headers of metadata, the trie that holds a directory's lines, the layout of chunked files,
// volume.json, and the trailers of commit messages.
//
// It reads objects through the interfaces Objects and Store, stores none itself, and does not believe what it reads:
// everything that a repository may lie about is checked here, and named in Problems or an error.
package format
