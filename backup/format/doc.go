// Package format implements FORMAT.md: what the objects of a volume contain, and how they are read and written. That is
// names in the user's tree, lines and headers of metadata, the trie that holds a directory's lines, the layout of
// chunked files, volume.json, and the trailers of commit messages.
//
// It reads objects through the interfaces Objects and Store and stores none itself. It does not believe what it reads:
// everything that a repository may lie about is checked here, and reported in Problems or as an error.
package format
