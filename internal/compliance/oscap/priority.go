package oscap

import "golang.org/x/sys/unix"

// lower gives the calling thread the lowest priority for processor and disk.
func lower() {
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowest)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWho, uintptr(unix.Gettid()), ioprioIdle) // kernels without block devices have none
}

// AtLowest runs f at the priority that oscap has, on a thread of its own: for what is to be done before a scan.
func AtLowest(f func() error) error {
	return onOwnThread(func() error {
		lower()
		return f()
	})
}
