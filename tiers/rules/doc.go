// Package rules decides what becomes of a path: which class it is of, whether it is left out of commits, and how soon
// it has to be safe. A set of rules is an ordered list in YAML, of which the first that matches a path decides.
//
//	# the first rule that matches decides
//	- match: state/                    # this directory and all below
//	  class: critical                  # critical, session (default) or memory
//	  critical_delay: 1s
//	- match: "**/*.db{,-wal,-journal}" # a doublestar glob over the whole path; commits
//	  class: critical                  # have all files of a database as of one moment
//	  fsync: remote
//	- match: "**/node_modules/"
//	  ignore: true
//	  io: passthrough
//	- match: "{cache,tmp}/"
//	  class: memory
//
// The list may also stand under the key `rules` of a mapping. Globs are those of github.com/bmatcuk/doublestar: `*` and
// `?` stop at a slash, `**` does not, `[a-z]`, `{a,b}` and `\` as in a shell. They are matched against the slash path
// in the volume, without a leading slash. One that ends with a slash is about a directory and all below it, others are
// about the path itself.
//
// An ignored directory, or one of class memory, is so with everything below it: rules that would say otherwise of paths
// in it are not looked at.
//
// A Set does not change and is safe for concurrent use.
package rules
