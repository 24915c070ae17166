// Package control is the language between a test on the host and the /init of a machine that it booted.
//
// The host leaves a Job on the machine's second disk: an 8-byte little-endian length, then the Job as JSON. Nothing on that
// disk is measured, so that it may differ between two boots of the same worker. /init then dials Job.Control, sends one
// Hello, and answers each Request with one Reply, in order; all of them are JSON values, one a line.
package control

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// DiskSerial is the serial number by which /init finds the disk with the Job.
const DiskSerial = "job"

// MaxJob bounds a Job on its disk, in bytes.
const MaxJob = 64 << 20

// Operations of a Request.
const (
	OpExec     = "exec"     // run Path with Args; Reply carries Exit and Data (standard output and error together)
	OpModule   = "module"   // load the module file Path with the parameters in Args
	OpWrite    = "write"    // write Data to Path with Mode, making its folders
	OpRead     = "read"     // read the file Path; Reply carries Data
	OpGlob     = "glob"     // list the paths that match the pattern Path; Reply carries Names
	OpPack     = "pack"     // read every file below the folder Path; Reply carries Files
	OpKexec    = "kexec"    // start the kernel file Path with the initrd Args[0] and the command line Args[1], without the firmware; the Reply comes before it
	OpReboot   = "reboot"   // restart the machine; the Reply comes before it
	OpPowerOff = "poweroff" // end the machine; the Reply comes before it
)

// File is a file that the host brings into the machine or takes home.
type File struct {
	Mode uint32 `json:"mode"` // permission bits
	Data []byte `json:"data"`
}

// Job is what the host wants from one boot.
type Job struct {
	Control string `json:"control"` // TCP address of the host's listener, as the guest reaches it ("10.0.2.2:4711")
	Token   string `json:"token"`   // sent back in Hello, so that the host knows its machine
	// Files are written before the agent starts, by absolute path. They are not measured; /init measures nothing either.
	Files map[string]File `json:"files,omitempty"`
}

// Hello is the first message of a machine.
type Hello struct {
	Token    string   `json:"token"`
	Uptime   string   `json:"uptime"`             // seconds since the kernel started
	Modules  []string `json:"modules,omitempty"`  // modules that /init loaded
	IMARules []string `json:"imaRules,omitempty"` // rules that the kernel accepted
	Problems []string `json:"problems,omitempty"` // what did not work while the machine came up
}

// Request asks for one action.
type Request struct {
	Op   string   `json:"op"`
	Path string   `json:"path,omitempty"`
	Args []string `json:"args,omitempty"`
	Mode uint32   `json:"mode,omitempty"`
	Data []byte   `json:"data,omitempty"`
}

// Reply answers one Request. Error is empty when the action did what it was asked to.
type Reply struct {
	Error string          `json:"error,omitempty"`
	Exit  int             `json:"exit,omitempty"` // exit status of a program that did start
	Data  []byte          `json:"data,omitempty"`
	Names []string        `json:"names,omitempty"`
	Files map[string]File `json:"files,omitempty"`
}

// WriteJob writes j as the job disk holds it.
func WriteJob(w io.Writer, j *Job) error {
	b, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("encode job: %w", err)
	}
	if len(b) > MaxJob {
		return fmt.Errorf("job has %d bytes, at most %d fit: bring large files in the initrd", len(b), MaxJob)
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b)))); err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	return nil
}

// ReadJob reads what WriteJob wrote; what follows on the disk is left alone.
func ReadJob(r io.Reader) (*Job, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read length of job: %w", err)
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > MaxJob {
		return nil, fmt.Errorf("job says it has %d bytes, at most %d are allowed", n, MaxJob)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read job: %w", err)
	}
	var j Job
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("decode job: %w", err)
	}
	return &j, nil
}
