package resolvconf

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h.
const immutableFlag = 0x10

func isImmutable(at string) bool {
	fd, err := unix.Open(at, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	return err == nil && flags&immutableFlag != 0
}

// reserve takes the room for n octets of a file, so that writing them can't fail
// for want of it.
func reserve(f *os.File, n int64) error {
	if n == 0 {
		return nil
	}
	const keepSize = unix.FALLOC_FL_KEEP_SIZE
	err := unix.Fallocate(int(f.Fd()), keepSize, 0, n)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
