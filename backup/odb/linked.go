package odb

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"golang.org/x/time/rate"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// VerifyLinked verifies the packs that Link brought, each of them once: every object that the index lists is inflated
// and hashed with collision-detecting SHA-1, and index and pack are compared with their checksums. A pack that passes
// counts as one of our own from then on, and its .keep is removed. It takes 4 bytes of memory per object, and the delta
// bases.
//
// It returns how many packs are good now, including those for which it made a new index because theirs was damaged. If
// others are damaged, what can be read of them is saved, they are put aside, and the error is cold.ErrCorrupt. If ctx
// is cancelled, the pack being verified is verified anew next time.
func (db *DB) VerifyLinked(ctx context.Context, bytesPerSecond int64) (good int, err error) {
	if db.readOnly {
		return 0, fmt.Errorf("verify linked packs: %w", ErrReadOnly)
	}
	if !db.hasLinked() {
		return 0, nil
	}
	done, err := db.exclusive(ctx)
	if err != nil {
		return 0, fmt.Errorf("verify linked packs: %w", err)
	}
	defer done()
	l, err := db.acquire()
	if err != nil {
		return 0, err
	}
	defer db.release(l)
	var damage error
	for _, p := range l.packs {
		if !p.linked.Load() || p.damaged.Load() {
			continue
		}
		err := db.verifyLinked(ctx, p, pace(bytesPerSecond))
		switch {
		case err == nil:
			good++
		case errors.Is(err, cold.ErrCorrupt):
			aside, merr := db.mendLinked(p)
			if merr != nil {
				p.damaged.Store(true) // do not try again in this process
				return good, errors.Join(damage, fmt.Errorf("pack %s.pack: %w", p.base, err), merr)
			}
			if aside {
				damage = errors.Join(damage, fmt.Errorf("pack %s.pack: %w", p.base, err))
			} else {
				good++
			}
		default:
			return good, fmt.Errorf("verify pack %s.pack: %w", p.base, err)
		}
	}
	return good, damage
}

func (db *DB) hasLinked() bool {
	l, err := db.acquire()
	if err != nil {
		return false
	}
	defer db.release(l)
	for _, p := range l.packs {
		if p.linked.Load() && !p.damaged.Load() {
			return true
		}
	}
	return false
}

func (db *DB) verifyLinked(ctx context.Context, p *pack, lim *rate.Limiter) error {
	if err := db.step("verify.read"); err != nil {
		return err
	}
	if err := p.idx.verify(); err != nil {
		return err
	}
	if err := p.checkSum(ctx, lim); err != nil {
		return err
	}
	by := p.offsets()
	for j, i := range by {
		off, _ := p.idx.offset(int(i))
		end := p.size - hashSize
		if j+1 < len(by) {
			end, _ = p.idx.offset(int(by[j+1]))
		}
		if err := wait(ctx, lim, end-off); err != nil {
			return err
		}
		id := p.idx.id(int(i))
		if err := db.tryPacked(p, int(i), func(s source) error { return checkSource(s, id) }); err != nil {
			return wrapObject(id, err)
		}
	}
	if err := db.step("verify.release"); err != nil {
		return err
	}
	return p.trust()
}

// trust turns a linked pack into one like any other.
func (p *pack) trust() error {
	if err := removeExisting(p.base + ".keep"); err != nil {
		return fmt.Errorf("release pack: %w", err)
	}
	p.linked.Store(false)
	return warm.SyncDir(filepath.Dir(p.base))
}

// mendLinked repairs a damaged linked pack as Mend does any other: it gets a new index, or what can be read of it is
// saved and it is put aside. The remote's file stays as it is.
func (db *DB) mendLinked(p *pack) (aside bool, err error) {
	aside, saved, err := db.Mend(p.name())
	if err != nil {
		return aside, err
	}
	log := db.log.WithField("pack", p.base+".pack")
	if aside {
		log.Errorf("a damaged linked pack was put aside; %d objects were saved from it", saved)
	} else {
		log.Warn("made a new index for a linked pack")
	}
	if err := p.trust(); err != nil {
		return aside, err
	}
	l, err := db.acquire()
	if err != nil {
		return aside, err
	}
	defer db.release(l)
	for _, q := range l.packs {
		if q.base == p.base {
			q.linked.Store(false)
		}
	}
	return aside, nil
}

// checkSum compares the pack with the checksum in its trailer.
func (p *pack) checkSum(ctx context.Context, lim *rate.Limiter) error {
	h := sha1.New()
	for r := p.section(0); ; {
		n, err := io.CopyN(h, r, packBuffer)
		if werr := wait(ctx, lim, n); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read pack: %w", err)
		}
	}
	if [hashSize]byte(h.Sum(nil)) != p.idx.packSum() {
		return corruptf("its checksum does not match, it is damaged or cut off")
	}
	return nil
}

// wait is called after n bytes were read, and waits to keep to the pace.
func wait(ctx context.Context, lim *rate.Limiter, n int64) error {
	for lim != nil && n > 0 {
		k := min(n, paceBurst)
		if err := lim.WaitN(ctx, int(k)); err != nil {
			return errors.Join(err, ctx.Err())
		}
		n -= k
	}
	return ctx.Err()
}
