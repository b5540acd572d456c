package lockfile

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

const tmpfs = 0x01021994

// bootID is made anew whenever the kernel starts. A variable for tests.
var bootID = "/proc/sys/kernel/random/boot_id"

// foreign are the file systems, by the number that statfs gives, whose locks are kept outside of this kernel or by nobody:
// by a server, which may end them before the process ends; by a daemon; or by each machine for itself.
var foreign = map[uint32]string{
	0x00006969: "NFS",
	0x0000517B: "SMB",
	0xFF534D42: "CIFS",
	0xFE534D42: "SMB2",
	0x01021997: "9p", // gVisor's files of the host, too
	0x65735546: "FUSE or virtiofs",
	0x00C36400: "Ceph",
	0x0BD00BD0: "Lustre",
	0x5346414F: "AFS",
	0x6B414653: "AFS",
	0x73757245: "Coda",
	0x0000564C: "NCP",
	0x7461636F: "OCFS2",
	0x01161970: "GFS2",
	0x47504653: "GPFS",
	0x19830326: "BeeGFS",
	0x20030528: "OrangeFS",
	0xAAD7AAEA: "PanFS",
	0x786F4256: "vboxsf",
	0xBACBACBC: "vmhgfs",
}

// kernelOf names the kernel that keeps the file's locks. A lock excludes no process under another kernel: a disk may be
// attached to another machine, or copied, while the process still runs on the first. A file in memory does not outlive its
// kernel, and needs no name. (In gVisor the name differs in each container, although the kernel is the same.)
func kernelOf(file *os.File) (string, error) {
	var stat syscall.Statfs_t
	if err := syscall.Fstatfs(int(file.Fd()), &stat); err != nil {
		return "", err
	}
	return keeper(uint32(stat.Type))
}

func keeper(kind uint32) (kernel string, err error) {
	if name := foreign[kind]; name != "" {
		return "", fmt.Errorf("it is on %s, where a lock can end before its process, or keeps nobody out", name)
	}
	if kind == tmpfs {
		return "", nil
	}
	boot, err := os.ReadFile(bootID)
	return "@" + strings.TrimSpace(string(boot)), err
}
