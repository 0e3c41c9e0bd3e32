package wire

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"emberfs/integration/testprog"
	"emberfs/tiers/cold"
)

const liveRef = "refs/heads/emberfs-live/main/1"

// Several references move in one step or not at all; one of them may only have to be where it is.
func TestPushSeveral(t *testing.T) {
	ctx := t.Context()
	dir, r := newRemote(t)
	v := newVolume(t)
	first := v.commit("one")
	check(t, r.push(ctx, []Update{{mainRef, cold.ID{}, first}, {liveRef, cold.ID{}, first}}, v.pack))
	second := v.commit("two")
	want := func(what string, main, live cold.ID) {
		t.Helper()
		refs, err := r.Refs(ctx)
		check(t, err)
		if refs[mainRef] != main || refs[liveRef] != live {
			t.Errorf("%s: main %s, live %s; want %s, %s", what, refs[mainRef], refs[liveRef], main, live)
		}
	}
	want("created", first, first)
	for what, updates := range map[string][]Update{
		"main is elsewhere":       {{mainRef, second, second}, {liveRef, first, second}},
		"main is already new":     {{mainRef, cold.ID{}, first}, {liveRef, first, second}},
		"the other is elsewhere":  {{mainRef, first, second}, {liveRef, second, second}},
		"the other is not there":  {{mainRef, first, second}, {liveRef + "2", first, second}},
		"the other is there":      {{mainRef, first, second}, {liveRef, cold.ID{}, second}},
		"one of them is to be it": {{mainRef, first, first}, {liveRef, second, first}},
	} {
		if err := r.push(ctx, updates, v.pack); !errors.Is(err, cold.ErrDiverged) && what != "one of them is to be it" {
			t.Errorf("%s: %v", what, err)
		}
		want(what, first, first)
	}
	check(t, r.push(ctx, []Update{{mainRef, first, first}, {liveRef, first, second}}, v.pack))
	want("guarded", first, second)
	check(t, r.push(ctx, []Update{{mainRef, first, first}, {liveRef, first, second}}, v.pack)) // the answer was lost
	git(t, dir, "fsck", "--strict")

	hook := filepath.Join(dir, "hooks", "update")
	check(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	check(t, testprog.Write(hook,
		"#!/bin/sh\ncase $1 in */emberfs-live/*) echo no live here >&2; exit 1;; esac\n"))
	third := v.commit("three")
	err := r.push(ctx, []Update{{mainRef, first, third}, {liveRef, second, third}}, v.pack)
	var refused *cold.RefusedError
	if !errors.As(err, &refused) || refused.Reason == "" {
		t.Errorf("a refusing hook: %v", err)
	}
	want("refused", first, second)
	check(t, os.Remove(hook))

	git(t, dir, "config", "receive.advertiseAtomic", "false")
	err = r.push(ctx, []Update{{mainRef, first, third}, {liveRef, second, third}}, v.pack)
	if !errors.Is(err, ErrNotAtomic) {
		t.Errorf("not atomic: %v", err)
	}
	want("not atomic", first, second)
	git(t, dir, "config", "receive.denyDeletes", "true")
	if err := r.push(ctx, []Update{{liveRef, second, cold.ID{}}}, nil); !errors.As(err, &refused) {
		t.Errorf("delete: %v", err)
	}
	git(t, dir, "config", "receive.denyDeletes", "false")
	check(t, r.push(ctx, []Update{{liveRef, second, cold.ID{}}}, nil))
	want("deleted", first, cold.ID{})
}
