package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/sirupsen/logrus"

	"emberfs/backup"
	"emberfs/backup/wire"
	"emberfs/fs"
	"emberfs/tiers"
	"emberfs/tiers/rules"
	"emberfs/tiers/warm"
)

// openVolume opens cold, and the volume that uses it. Closing the volume closes both. The transfers with the remote are
// put into moving, and shown, as is a restore, until shown ends.
func openVolume(ctx context.Context, c *config, log logrus.FieldLogger, moving *transfers, shown *progress) (
	*tiers.Volume, error) {
	machine, volume, err := warm.Identity(c.State)
	if err != nil {
		return nil, err
	}
	var own *rules.Set
	if c.Rules != nil { // they were checked when the settings were read
		if own, _, err = rules.ParseConfig(c.Rules); err != nil {
			return nil, fmt.Errorf("rules of the settings file: %w", err)
		}
	}
	later := mayWait(c) // before Open makes anything
	cold, err := backup.Open(filepath.Join(c.State, coldName), backup.Options{
		Branch: c.Branch, Source: c.Source, MachineID: machine, VolumeID: volume, UserName: c.UserName,
		UserEmail:      c.UserEmail,
		ChunkThreshold: c.ChunkThreshold, PushMax: c.PushMax, Init: c.Init, SourceLater: later,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Log: log,
		Progress: func(what string, objects, of, bytes int64) {
			moving.set(what, objects, of, bytes)
			if what != "" {
				shown.expect(of, 0)
				shown.set(objects, bytes)
			}
		},
		Fail: failpoint, Remote: remoteOptions(c),
	})
	if err != nil {
		return nil, err
	}
	restoring := sync.OnceFunc(func() { shown.begin("restore", "file") })
	vol, err := tiers.Open(ctx, tiers.Config{
		State: c.State, Cold: cold, Log: log, Source: publicSource(c.Source), Branch: c.Branch,
		MemoryLimit: c.MemoryLimit, MemoryClassLimit: c.MemoryClassLimit,
		FlushInterval: c.FlushInterval, BackupInterval: c.BackupInterval, CriticalDelay: c.CriticalDelay,
		MaxAtRisk: budgetOf(c.MaxAtRisk), RiskWarn: budgetOf(c.RiskWarn),
		PushMinInterval: c.PushMinInterval, FsyncTimeout: c.FsyncTimeout, OfflineRefuse: c.Offline == offlineRefuse,
		RequireComplete: c.RequireComplete, AnnounceDelay: c.AnnounceDelay,
		Tiering: c.Tiering, HotAge: c.HotAge, WarmAge: c.WarmAge, TierInterval: c.TierInterval,
		WarmLimit: c.WarmLimit, WarmReserve: c.WarmReserve, Prefetch: c.Prefetch,
		Rules: own, AcceptRules: c.AcceptRules, Untrusted: c.Untrusted, Atime: tiers.AtimeOf(c.Flags),
		Progress: func(files, bytes, total int64) {
			restoring()
			shown.expect(total, 0)
			shown.set(files, bytes)
		},
		Fail: failpoint,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the volume in %s: %w", c.State, err), cold.Close())
	}
	return vol, nil
}

// remoteOptions say how the source is reached.
func remoteOptions(c *config) wire.Options {
	return wire.Options{User: c.RemoteUser, Token: c.Token, TLSCA: c.TLSCA, TLSCert: c.TLSCert, TLSKey: c.TLSKey,
		Proxy: c.Proxy, SSHKey: c.SSHKey, KnownHosts: c.KnownHosts, AcceptNew: c.HostKeyCheck == "accept-new"}
}

// shownSource is what the table of mounts shows as the source of a volume.
func shownSource(c *config) string {
	if c.Source == "" {
		return "emberfs"
	}
	return publicSource(c.Source)
}

// mountVolume mounts the volume. report returns the content of .emberfs/status.json, and noticed that of notice.json.
func mountVolume(vol *tiers.Volume, c *config, log logrus.FieldLogger, report, noticed func() []byte) (*fs.Server,
	error) {
	server, err := fs.Mount(vol, fs.Options{
		Mountpoint: c.Mountpoint, FsName: shownSource(c), AllowOther: c.AllowOther, MountOptions: c.Flags,
		KernelCache: c.KernelCache, Debug: c.LogLevel == "debug", Log: log, Status: report,
		Notice: noticed,
	})
	var me *fs.MountError
	if errors.As(err, &me) { // the caller names the mountpoint already
		err = me.Err
	}
	return server, err
}
