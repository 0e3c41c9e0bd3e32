//go:build slow

package integration

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hostileRepo makes objects that git's porcelain would not, by thousands, as loose ones.
type hostileRepo struct {
	t   *testing.T
	dir string
}

func (h hostileRepo) object(kind, content string) string {
	h.t.Helper()
	text := fmt.Sprintf("%s %d\x00%s", kind, len(content), content)
	id := fmt.Sprintf("%x", sha1.Sum([]byte(text)))
	dir := filepath.Join(h.dir, "objects", id[:2])
	check(h.t, os.MkdirAll(dir, 0o755))
	var loose bytes.Buffer
	z := zlib.NewWriter(&loose)
	_, err := z.Write([]byte(text))
	check(h.t, errors.Join(err, z.Close(), os.WriteFile(filepath.Join(dir, id[2:]), loose.Bytes(), 0o644)))
	return id
}

// tree makes a tree of "MODE NAME ID" entries in the given order, names as they are.
func (h hostileRepo) tree(entries ...[3]string) string {
	h.t.Helper()
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e[0] + " " + e[1] + "\x00")
		for i := 0; i < 40; i += 2 {
			var c byte
			if _, err := fmt.Sscanf(e[2][i:i+2], "%02x", &c); err != nil {
				h.t.Fatal(err)
			}
			b.WriteByte(c)
		}
	}
	return h.object("tree", b.String())
}

func (h hostileRepo) commit(tree string) {
	h.t.Helper()
	id := strings.TrimSpace(must(h.t, "/", "git", "-C", h.dir, "commit-tree", "-m", "hostile", tree))
	must(h.t, "/", "git", "-C", h.dir, "update-ref", "refs/heads/main", id)
}

// TestHostileRepositories mounts repositories that were made to do harm. Each is refused with a message that says why,
// or the good part of it is there; nothing outside of the mount and the state directory is touched, and neither memory
// nor disk are used up.
func TestHostileRepositories(t *testing.T) {
	t.Parallel()
	const good = "good content\n"
	cases := []struct {
		name string
		make func(h hostileRepo)
		// refused is a part of the message where the mount is refused; "" where the file "good" is there, and the log
		// says logged, or status lists that something standsIn.
		refused, logged, standsIn string
		serverRefuses             bool // git on the other side may find it out first
	}{
		{name: "tree bomb", refused: "more than", make: func(h hostileRepo) {
			id := h.tree([3]string{"100644", "f", h.object("blob", "x")})
			for range 12 {
				var e [][3]string
				for i := range 10 {
					e = append(e, [3]string{"40000", fmt.Sprint("d", i), id})
				}
				id = h.tree(e...)
			}
			h.commit(h.tree([3]string{"40000", "bomb", id}, [3]string{"100644", "good", h.object("blob", good)}))
		}},
		{name: "absurd depth", make: func(h hostileRepo) {
			id := h.tree([3]string{"100644", "f", h.object("blob", "x")})
			for range 5000 {
				id = h.tree([3]string{"40000", "d", id})
			}
			h.commit(h.tree([3]string{"40000", "deep", id}, [3]string{"100644", "good", h.object("blob", good)}))
		}},
		{name: "names that lead out", serverRefuses: true, logged: "not a name", make: func(h hostileRepo) {
			evil := h.object("blob", "evil")
			up := h.tree([3]string{"100644", "escaped", evil})
			h.commit(h.tree([3]string{"40000", "..", up}, [3]string{"100644", ".", evil},
				[3]string{"100644", "../escaped", evil}, [3]string{"100644", "/tmp/escaped", evil},
				[3]string{"100644", "good", h.object("blob", good)}))
		}},
		{name: "a name twice", logged: "comes twice", make: func(h hostileRepo) {
			h.commit(h.tree([3]string{"100644", "good", h.object("blob", good)},
				[3]string{"120000", "good", h.object("blob", "/etc/passwd")}))
		}},
		{name: "a link and a directory of one name", logged: "comes twice", make: func(h hostileRepo) {
			out := h.object("blob", "/tmp")
			h.commit(h.tree([3]string{"120000", "a", out},
				[3]string{"40000", "a", h.tree([3]string{"100644", "escaped", h.object("blob", "evil")})},
				[3]string{"100644", "good", h.object("blob", good)}))
		}},
		{name: "strange modes", logged: "mode", make: func(h hostileRepo) {
			b := h.object("blob", "x")
			h.commit(h.tree([3]string{"104755", "suid", b}, [3]string{"060644", "disk", b},
				[3]string{"100644", "good", h.object("blob", good)}))
		}},
		{name: "a submodule", standsIn: "submodule", make: func(h hostileRepo) {
			h.commit(h.tree([3]string{"100644", "good", h.object("blob", good)},
				[3]string{"160000", "sub", strings.Repeat("12", 20)}))
		}},
		{name: "own directory is a link", make: func(h hostileRepo) {
			h.commit(h.tree([3]string{"120000", ".emberfs", h.object("blob", "/etc")},
				[3]string{"100644", "good", h.object("blob", good)}))
		}},
		{name: "own directory is a submodule", make: func(h hostileRepo) {
			h.commit(h.tree([3]string{"160000", ".emberfs", strings.Repeat("12", 20)},
				[3]string{"100644", "good", h.object("blob", good)}))
		}},
		{name: "a newer format", refused: "newer", make: func(h hostileRepo) {
			own := h.tree([3]string{"100644", "volume.json", h.object("blob", `{"format":99,"volume":"x"}`)})
			h.commit(h.tree([3]string{"40000", ".emberfs", own}, [3]string{"100644", "good", h.object("blob", good)}))
		}},
		{name: "metadata of another directory", make: func(h hostileRepo) {
			lines := `{"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","mode":"0755","uid":0,"gid":0,"mtime":[0,0]}` +
				"\n" +
				`{"name":"../../escaped","type":"fifo","mode":"0644","uid":0,"gid":0,"mtime":[0,0]}` + "\n"
			meta := h.tree([3]string{"100644", ".emberfs%entries", h.object("blob", lines)})
			own := h.tree([3]string{"40000", "meta", meta},
				[3]string{"100644", "volume.json", h.object("blob", `{"format":1,"volume":"x"}`)})
			h.commit(h.tree([3]string{"40000", ".emberfs", own}, [3]string{"100644", "good", h.object("blob", good)}))
		}},
		{name: "a zlib bomb", make: func(h hostileRepo) {
			// 400 MB of zeros in 400 KB: the file is what it says, so it comes, as a hole.
			shell(h.t, h.dir, `id=$(head -c 400000000 /dev/zero | git hash-object -w --stdin); good=$(printf 'good content\n' | git hash-object -w --stdin)
				tree=$(printf '100644 blob %s\tgood\n100644 blob %s\tzeros\n' $good $id | git mktree); git update-ref refs/heads/main $(git commit-tree -m bomb $tree)`)
		}},
		{name: "a missing blob", standsIn: "missing from cold", make: func(h hostileRepo) {
			gone := h.object("blob", "gone")
			h.commit(h.tree([3]string{"100644", "gone", gone}, [3]string{"100644", "good", h.object("blob", good)}))
			check(h.t, os.Remove(filepath.Join(h.dir, "objects", gone[:2], gone[2:])))
		}},
		{name: "a wrong hash", standsIn: "missing from cold", make: func(h hostileRepo) {
			a, b := h.object("blob", "content"), h.object("blob", "contenu")
			h.commit(h.tree([3]string{"100644", "a", a}, [3]string{"100644", "good", h.object("blob", good)}))
			other, err := os.ReadFile(filepath.Join(h.dir, "objects", b[:2], b[2:]))
			check(h.t, err)
			check(h.t, os.Chmod(filepath.Join(h.dir, "objects", a[:2], a[2:]), 0o644))
			check(h.t, os.WriteFile(filepath.Join(h.dir, "objects", a[:2], a[2:]), other, 0o644))
		}},
		{name: "a rules file that drops data", make: func(h hostileRepo) {
			own := h.tree([3]string{"100644", "rules.yaml",
				h.object("blob", "rules:\n- match: '**'\n  class: memory\n")},
				[3]string{"100644", "volume.json", h.object("blob", `{"format":1,"volume":"x"}`)})
			h.commit(h.tree([3]string{"40000", ".emberfs", own}, [3]string{"100644", "good", h.object("blob", good)}))
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			deadline(t, 5*time.Minute)
			h := hostileRepo{t, newBareRepo(t, "remote.git", user{})}
			c.make(h)
			before := scanTree(t, testDir(t))
			v := newVolume(t, "v", withSource(h.dir))
			r := v.tryMount()
			if r.code != 0 && c.serverRefuses && strings.Contains(r.stderr, "upload-pack") {
				t.Logf("git does not send it: %s", r.stderr)
			} else if c.refused != "" {
				if r.code != 32 || !strings.Contains(r.stderr, c.refused) {
					t.Errorf("want exit 32 and %q\n%v", c.refused, r)
				}
			} else {
				if r.code != 0 {
					t.Fatalf("%v", r)
				}
				wantFile(t, v.at("good"), good, "good holds")
				if rss := peakRSS(t, v.daemon()); rss > 150<<20 {
					t.Errorf("the daemon took %d MB", rss>>20)
				}
				log, err := os.ReadFile(v.logFile())
				check(t, err)
				if c.standsIn != "" {
					if st := v.status(); len(st.LeftOut) == 0 || !strings.Contains(st.LeftOut[0], c.standsIn) {
						t.Errorf("status does not list %q: %q", c.standsIn, st.LeftOut)
					}
				}
				if c.logged != "" && !strings.Contains(string(log), c.logged) {
					t.Errorf("the log does not say %q:\n%s", c.logged, log)
				}
				if st := v.status(); c.logged != "" &&
					(len(st.Errors) == 0 || !strings.Contains(st.Errors[0], "restore:")) {
					t.Errorf("status does not say it: %q", st.Errors)
				}
				check(t, os.WriteFile(v.at("mine"), []byte("mine"), 0o644))
				v.umount()
			}
			// Read without git between: exactly what the repository holds.
			to := filepath.Join(testDir(t), "copy")
			r = command{args: []string{env.bin, "restore", "--from", h.dir, "--to", to}, limit: time.Minute}.run(t)
			if b, err := os.ReadFile(filepath.Join(to, "good")); r.code != 1 && (err != nil || string(b) != good) {
				t.Errorf("the copy of good holds %q, %v\n%v", b, err, r)
			}
			if r.code == 1 && c.refused == "" || r.code > 3 || r.code == 2 {
				t.Errorf("%v", r)
			}
			check(t, os.RemoveAll(to))
			for _, p := range []string{"/tmp/escaped", filepath.Join(testDir(t), "escaped"),
				filepath.Join(v.dir, "escaped"), filepath.Join(v.state, "escaped")} {
				if _, err := os.Lstat(p); err == nil {
					t.Errorf("%s was written", p)
				}
			}
			must(t, "/", "rm", "-rf", v.dir)
			after := scanTree(t, testDir(t))
			for p, was := range before {
				if !strings.HasPrefix(p, "/remote.git") && p != "" && after[p] != was {
					t.Errorf("%s: %s became %s", p, was, after[p])
				}
			}
		})
	}
}

// peakRSS is the most memory that a process had, in bytes.
func peakRSS(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	for _, line := range strings.Split(string(b), "\n") {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
