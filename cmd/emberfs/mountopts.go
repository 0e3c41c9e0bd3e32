package main

import (
	"fmt"
	"slices"
	"strings"
)

// optionList is the parsed form of `-o a,b=c`.
type optionList struct {
	values  map[string]given // EmberFS's settings, by name
	flags   []string         // per-mount flags for mount(2), without contradictions: ro, nosuid, ...
	back    []string         // flags that are cleared, as ro by rw; a remount keeps flags that are in neither list
	remount bool
	// mount(8) has merged the options in /proc/mounts with those of the user: a flag that is not in the list is
	// cleared.
	merged bool
}

// given is a setting's value before it is checked, and where it came from, in the user's own spelling.
type given struct {
	value string
	where string
}

// flagPairs returns mount(2)'s per-mount flags, with the word that clears each.
func flagPairs() map[string]string {
	return map[string]string{
		"ro": "rw", "nosuid": "suid", "nodev": "dev", "noexec": "exec", "noatime": "atime", "nodiratime": "diratime",
		"relatime": "norelatime", "strictatime": "nostrictatime", "sync": "async", "dirsync": "",
		"default_permissions": "",
	}
}

// isAtime reports whether a flag is one of the ways to keep access times, of which a mount has exactly one.
func isAtime(flag string) bool {
	return flag == "noatime" || flag == "relatime" || flag == "strictatime"
}

// impliedFlags returns the flags that fstab's options for plain users imply.
func impliedFlags(option string) []string {
	switch option {
	case "user", "users":
		return []string{"nosuid", "nodev", "noexec"}
	case "owner", "group":
		return []string{"nosuid", "nodev"}
	}
	return nil
}

// forOthers reports whether an option is meant for mount(8), systemd or readers of fstab, and means nothing to EmberFS.
func forOthers(key string) bool {
	switch key {
	case "defaults", "auto", "noauto", "nouser", "nousers", "noowner", "nogroup", "_netdev", "nofail", "comment",
		"helper", "uhelper",
		"silent", "loud", "iversion", "noiversion", "mand", "nomand":
		return true
	}
	return strings.HasPrefix(key, "x-") || strings.HasPrefix(key, "X-")
}

// isContext recognises SELinux's mount options, which the kernel reads.
func isContext(key string) bool {
	return key == "context" || key == "fscontext" || key == "defcontext" || key == "rootcontext"
}

// ofTheKernel reports whether an option is one that /proc/mounts shows for a mounted volume; mount(8) passes them at a
// remount.
func ofTheKernel(key string) bool {
	switch key {
	case "user_id", "group_id", "rootmode", "fd", "max_read", "blksize":
		return true
	}
	return false
}

// parseOptions parses one or more -o lists; later options override earlier ones. With sloppy (mount -s) unknown options
// are ignored.
func parseOptions(op string, lists []string, sloppy bool) (optionList, error) {
	out := optionList{values: map[string]given{}}
	pairs := flagPairs()
	opposite := make(map[string]string, len(pairs))
	for flag, back := range pairs {
		if back != "" {
			opposite[back] = flag
		}
	}
	var items []string
	for _, list := range lists {
		items = append(items, splitOptions(list)...)
	}
	items = joinBudgets(items)
	out.remount = slices.Contains(items, "remount")
	add := func(flag string) {
		if !slices.Contains(out.flags, flag) {
			out.flags = append(out.flags, flag)
		}
		out.back = slices.DeleteFunc(out.back, func(f string) bool { return f == flag })
		if isAtime(flag) { // the last one applies
			out.flags = slices.DeleteFunc(out.flags, func(f string) bool { return isAtime(f) && f != flag })
		}
	}
	for _, item := range items {
		key, value, hasValue := strings.Cut(item, "=")
		if _, ok := pairs[key]; ok && !hasValue {
			add(key)
			continue
		}
		if flag, ok := opposite[key]; ok && !hasValue {
			out.flags = slices.DeleteFunc(out.flags, func(f string) bool { return f == flag })
			out.back = append(out.back, flag)
			continue
		}
		if implied := impliedFlags(key); implied != nil {
			for _, flag := range implied {
				add(flag)
			}
			continue
		}
		if isContext(key) && hasValue {
			add(item)
			continue
		}
		out.merged = out.merged || out.remount && ofTheKernel(key)
		if key == "remount" || forOthers(key) || out.remount && ofTheKernel(key) {
			continue
		}
		name := normalKey(key)
		s, ok := findSetting(name)
		if !ok {
			if sloppy {
				continue
			}
			why, hint := unknownSetting(key, append(sortedKeys(pairs), "defaults", "remount", "nofail", "noauto",
				"_netdev")...)
			if soundsSecret(name) {
				item = key
			}
			return out, usageError(op, "-o "+item, why, hint)
		}
		if !hasValue {
			if s.kind != kindBool {
				return out, usageError(op, "-o "+item, "needs a value",
					fmt.Sprintf("write -o %s=%s", key, exampleValue(s)))
			}
			value = "true"
		}
		out.values[name] = given{value: value, where: "-o " + key}
	}
	slices.Sort(out.flags)
	return out, nil
}

// soundsSecret says that the value of an option that does not exist may be a secret, which a message must not repeat.
func soundsSecret(name string) bool {
	parts := []string{"tok", "secret", "pass", "cred", "key", "prox", "auth"}
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(name, part) })
}

// splitOptions splits a list at commas. A backslash protects a comma or backslash after it, double quotes protect all
// commas inside.
func splitOptions(list string) []string {
	var items []string
	var b strings.Builder
	quoted := false
	flush := func() {
		if b.Len() > 0 {
			items = append(items, b.String())
		}
		b.Reset()
	}
	for i := 0; i < len(list); i++ {
		c := list[i]
		switch {
		case c == '\\' && i+1 < len(list) && (list[i+1] == ',' || list[i+1] == '\\' || list[i+1] == '"'):
			i++
			b.WriteByte(list[i])
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			flush()
		default:
			b.WriteByte(c)
		}
	}
	flush()
	return items
}

// joinBudgets puts together the two parts of a budget such as max_at_risk=60s,100MB, which the comma had separated.
func joinBudgets(items []string) []string {
	var out []string
	for _, item := range items {
		if len(out) > 0 && !strings.Contains(item, "=") {
			key, value, _ := strings.Cut(out[len(out)-1], "=")
			if s, ok := findSetting(normalKey(key)); ok && s.kind == kindBudget && !strings.Contains(value, ",") {
				if b, err := parseBudget(item); err == nil && !b.IsZero() {
					out[len(out)-1] += "," + item
					continue
				}
			}
		}
		out = append(out, item)
	}
	return out
}

func exampleValue(s setting) string {
	switch {
	case s.def != "":
		return s.def
	case s.kind == kindDuration:
		return "30s"
	case s.kind == kindPath:
		return "PATH"
	case s.kind == kindBudget:
		return "60s+100MB"
	}
	return "VALUE"
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
