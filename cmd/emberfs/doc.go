// Command emberfs mounts a volume, backs it up and brings it back.
//
// The mount path reads top to bottom: settings are resolved (settings.go, config.go, mountopts.go), everything that can
// be refused is refused before anything is started (preflight.go, source.go, state.go), the process starts itself again
// in the background (daemonize.go), wires backup, tiers and fs together (wire.go) and serves until the mount is gone
// (daemon.go).
//
// A daemon is found by its mountpoint through small files in a runtime directory (registry.go) and spoken to over a
// socket in its state directory (control.go, client.go). The same binary is mount(8)'s helper when it is called by one
// of the names in helper.go.
//
// What needs no daemon (restore, log, diff, snapshots) finds the repository through history.go and reads it beside
// whoever writes there. Long work shows how far it is through progress.go.
//
// The manual is in the directory man: emberfs(8), emberfs-rules(5) and emberfs-remotes(7) are written by hand, and
// manual_test.go makes a page for each command, of what --help says, and emberfs-settings(5), of the table of settings
// (settings_table.go). go generate writes them.
//
// Exit codes are the contract of errors.go: 0 done, 1 failed and nothing changed, 2 usage, 3 done in part, 32 mount
// failure. main is the only caller of os.Exit.
package main
