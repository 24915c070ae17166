package evidence

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// HostLogs is what a worker's files say, without its TPM.
type HostLogs struct {
	EventLog []byte
	IMA      []byte
	Facts    map[string][]byte
	Absent   []Absent // what could not be read, in the order tried
}

// Absent tells what could not be read, and why: a level that needs it will be unknown.
type Absent struct {
	Name   string // name of the fact, "event log" or "ima"
	Path   string
	Reason string
}

// Paths below the root of a worker.
const (
	eventLogPath = "sys/kernel/security/tpm0/binary_bios_measurements"
	imaPath      = "sys/kernel/security/ima/binary_runtime_measurements"
	efivarsPath  = "sys/firmware/efi/efivars"
	msrPath      = "dev/cpu/0/msr"
	meiGlob      = "sys/class/mei/mei*/fw_status"
)

// msrBootGuard is the address of MSR_BOOT_GUARD_SACM_INFO.
const msrBootGuard = 0x13a

// factPaths are the facts that are read as they are.
var factPaths = []struct{ fact, path string }{
	{FactLockdown, "sys/kernel/security/lockdown"},
	{FactTainted, "proc/sys/kernel/tainted"},
	{FactSigEnforce, "sys/module/module/parameters/sig_enforce"},
	{FactCommandLine, "proc/cmdline"},
	{FactModules, "proc/modules"},
	{FactVersion, "proc/version"},
	{FactBootID, "proc/sys/kernel/random/boot_id"},
}

// machinePaths are where a kubelet takes the UUID of its system from: the first one that can be read (cAdvisor, GetSystemUUID). A Node object shows
// the same one.
var machinePaths = []string{
	"sys/class/dmi/id/product_uuid", "proc/device-tree/system-id", "proc/device-tree/vm,uuid", "etc/machine-id",
}

// ReadHost reads the logs and facts of the worker whose file system has its root at root ("" for "/"). Nothing that is absent is an
// error: it is listed in Absent. An error means that a file is there and larger than allowed, or that reading it broke off.
func ReadHost(root string) (HostLogs, error) {
	h := HostLogs{Facts: map[string][]byte{}}
	var err error
	if h.EventLog, err = h.read(root, "event log", eventLogPath, MaxEventLog); err != nil {
		return h, err
	}
	if h.IMA, err = ReadIMA(root, 0); errors.Is(err, errAbsent) {
		h.absent("ima", imaPath, err)
	} else if err != nil {
		return h, err
	}
	if err := h.readFacts(root); err != nil {
		return h, err
	}
	return h, h.readVolumes(root)
}

// readVolumes reads which volumes are in use.
func (h *HostLogs) readVolumes(root string) error {
	b, err := ReadVolumes(root, "")
	if errors.Is(err, errAbsent) {
		h.absent(FactVolumes, mountsPath, err)
		return nil
	}
	if err == nil {
		h.Facts[FactVolumes] = b
	}
	return err
}

// ReadEventLog reads the firmware log; it is nil, without an error, when the kernel has none.
func ReadEventLog(root string) ([]byte, error) {
	b, err := readHostFile(root, eventLogPath, MaxEventLog)
	if errors.Is(err, errAbsent) {
		return nil, nil
	}
	return b, err
}

// ReadHostFacts reads only the facts, as ReadHost does.
func ReadHostFacts(root string) (map[string][]byte, []Absent, error) {
	h := HostLogs{Facts: map[string][]byte{}}
	err := h.readFacts(root)
	return h.Facts, h.Absent, err
}

func (h *HostLogs) readFacts(root string) error {
	for _, f := range factPaths {
		if err := h.fact(root, f.fact, f.path); err != nil {
			return err
		}
	}
	h.readMachine(root)
	h.readMEI(root)
	h.readMSR(root)
	return h.readVariables(root)
}

// errAbsent says that the host does not have a file, or does not let it be read.
var errAbsent = errors.New("absent")

// readHostFile reads a file of the kernel. Its size is not known before: such files say they have none.
func readHostFile(root, path string, limit int) ([]byte, error) {
	b, err := readFile(filepath.Join("/", root, path), limit)
	if errors.Is(err, ErrLimit) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", errAbsent, reason(err))
	}
	return b, nil
}

// reason is the error without the path, which Absent has already.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

func (h *HostLogs) absent(name, path string, err error) {
	h.Absent = append(h.Absent, Absent{Name: name, Path: "/" + path, Reason: strings.TrimPrefix(err.Error(), errAbsent.Error()+": ")})
}

// read reads a file and notes its absence.
func (h *HostLogs) read(root, name, path string, limit int) ([]byte, error) {
	b, err := readHostFile(root, path, limit)
	if errors.Is(err, errAbsent) {
		h.absent(name, path, err)
		return nil, nil
	}
	return b, err
}

func (h *HostLogs) fact(root, fact, path string) error {
	b, err := h.read(root, fact, path, MaxFact)
	if b != nil {
		h.Facts[fact] = b
	}
	return err
}

// readMachine reads the UUID of the system.
func (h *HostLogs) readMachine(root string) {
	for _, path := range machinePaths {
		if b, err := readHostFile(root, path, MaxStructure); err == nil {
			h.Facts[FactMachine] = b
			return
		}
	}
	h.absent(FactMachine, machinePaths[0], errors.New("neither this nor any other file that a kubelet takes the system's UUID from can be read"))
}

// readMEI reads the six status registers of the first Management Engine interface.
func (h *HostLogs) readMEI(root string) {
	files, _ := filepath.Glob(filepath.Join("/", root, meiGlob))
	if len(files) == 0 {
		h.absent(FactMEIStatus, meiGlob, errors.New("no Management Engine interface (driver mei_me not loaded, or not an Intel platform)"))
		return
	}
	b, err := readFile(files[0], MaxStructure)
	if err != nil {
		h.absent(FactMEIStatus, meiGlob, errors.New(reason(err)))
		return
	}
	h.Facts[FactMEIStatus] = b
}

// readMSR reads MSR 0x13A; the fact is its 8 bytes in the little-endian order of the processor.
func (h *HostLogs) readMSR(root string) {
	f, err := os.Open(filepath.Join("/", root, msrPath))
	if err == nil {
		defer f.Close()
		var b [8]byte
		// The file is addressed by register: each read gives 8 bytes, and the next address is the next register.
		if _, err = io.ReadFull(io.NewSectionReader(f, msrBootGuard, 8), b[:]); err == nil {
			h.Facts[FactMSRBootGrd] = b[:]
			return
		}
	}
	h.absent(FactMSRBootGrd, msrPath, errors.New(reason(err)+" (driver msr not loaded, not permitted, or not an Intel platform)"))
}
