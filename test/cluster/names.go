package cluster

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// prefix begins the name of everything on the machine that is ours: network namespaces, interfaces, control groups.
const prefix = "tse2e-"

// Addresses. The machine itself has one on the bridge, so that tests and people reach the API server.
const (
	network     = "10.177.0.0/24"
	bits        = "/24"
	machineIP   = "10.177.0.254"
	serviceCIDR = "10.196.0.0/16"
	serviceIP   = "10.196.0.1" // of the Service "kubernetes"
	podCIDR     = "10.180.0.0/14"
	apiPort     = "6443"
	// FrontIP is where the API server is reached, whichever members run.
	FrontIP = "10.177.0.10"
)

// MemberIP returns the address of a member of the control plane, counted from 1.
func MemberIP(i int) string { return fmt.Sprintf("10.177.0.%d", i) }

// workerIP returns the address of a worker, counted from 1.
func workerIP(i int) string { return netip.AddrFrom4([4]byte{10, 177, 0, byte(10 + i)}).String() }

// names of network namespaces.
const (
	lanNS   = prefix + "lan"
	frontNS = prefix + "front"
)

func memberNS(i int) string { return fmt.Sprintf("%smember-%d", prefix, i) }

// folder is where a run has its files: there is one on a machine, so that the next run finds what this one left. Sockets are in it, so
// its name is short.
func folder() string { return filepath.Join(os.TempDir(), prefix+"run") }
