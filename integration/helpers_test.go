package integration

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// runHelper is the main function of this binary when it serves as another process.
func runHelper(name string, args []string) int {
	helpers := map[string]func([]string) error{
		"append": helperAppend,
		"lock":   helperLock,
		"mmap":   helperMmap,
		"posix":  helperPosix,
		"unseen": helperUnseen,
		"writer": helperWriter,
	}
	f, ok := helpers[name]
	if !ok {
		f, ok = slowHelpers[name]
	}
	if !ok {
		fmt.Fprintf(os.Stderr, "no helper %q\n", name)
		return 2
	}
	if err := f(args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// slowHelpers are those that only slow tests have; filled by init functions.
var slowHelpers = map[string]func([]string) error{}

// appendRecord is the length of a record that helperAppend writes.
const appendRecord = 100

func helperAppend(args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	fd, err := unix.Open(args[0], unix.O_WRONLY|unix.O_APPEND, 0)
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := unix.Write(fd, fmt.Appendf(nil, "%s %*d\n", args[1], appendRecord-3, i)); err != nil {
			return err
		}
	}
	return unix.Close(fd)
}

// helperLock takes a lock (flock, posix, ofd; with -nb without waiting), says so and holds it until its input ends.
func helperLock(args []string) error {
	fd, err := unix.Open(args[1], unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	switch args[0] {
	case "flock":
		err = unix.Flock(fd, unix.LOCK_EX)
	case "flock-nb":
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	case "posix":
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, wholeFile())
	case "posix-nb":
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLK, wholeFile())
	case "ofd-nb":
		err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, wholeFile())
	}
	if err != nil {
		return err
	}
	fmt.Println("locked")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

func wholeFile() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK} }

// helperMmap maps a file shared and writes a text at an offset without closing or syncing anything.
func helperMmap(args []string) error {
	off, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	fd, err := unix.Open(args[0], unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	m, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m[off:], args[2])
	return nil
}

// helperPosix runs the cases whose names follow in directories below the first argument, as the tests of a test binary.
func helperPosix(args []string) error {
	os.Args = []string{os.Args[0], "-test.v", "-test.timeout=10m"}
	testing.Main(func(string, string) (bool, error) { return true, nil },
		[]testing.InternalTest{{Name: "Cell", F: func(t *testing.T) { runCell(t, args[0], args[1:]) }}}, nil, nil)
	return nil
}
