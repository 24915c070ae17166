package attribution

import (
	"bytes"
	"strings"
)

// place is what a cgroup path says: a pod and its container, or a unit of the host. The zero value is not known.
type place struct {
	pod       string // UID
	container string // ID
	unit      string // of the host; the path itself where there is no unit
}

// parseCgroups reads /proc/PID/cgroup. With version 1 and in hybrid forms there are several lines: one that names a container counts, else that of
// version 2 or of systemd.
func parseCgroups(b []byte) place {
	host := ""
	for line := range bytes.Lines(b) {
		parts := strings.SplitN(strings.TrimRight(string(line), "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		p := parsePath(parts[2])
		if p.pod != "" || p.container != "" {
			return p
		}
		if host == "" || parts[1] == "" || parts[1] == "name=systemd" {
			host = p.unit
		}
	}
	return place{unit: host}
}

// parsePath takes a cgroup path apart, as kubelet and container runtimes make them:
//
//	systemd:  /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-ID.scope (UID with _ for -)
//	cgroupfs: /kubepods/burstable/podUID/ID, CRI-O with crio-ID
//	both:     /x/kubepods-podUID.slice:cri-containerd:ID
//
// What a container makes below its own cgroup (systemd in a pod) comes behind that and says nothing.
func parsePath(path string) place {
	var p place
	under := false // kubepods
	for part := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(part, "kubepods") {
			under = true
		}
		if p.container != "" {
			break
		}
		if i := strings.IndexByte(part, ':'); i >= 0 {
			if uid := podUID(part[:i]); uid != "" {
				p.pod = uid
			}
			part = part[strings.LastIndexByte(part, ':')+1:]
		}
		if uid := podUID(part); uid != "" && (under || strings.HasPrefix(part, "pod")) {
			p.pod = uid
			continue
		}
		if id := containerID(part); id != "" {
			p.container = id
		}
	}
	if p.pod == "" && p.container == "" {
		p.unit = unit(path)
	}
	return p
}

// podUID finds "podUID" in a part of a path. UIDs of static pods are 32 digits without dashes.
func podUID(part string) string {
	i := strings.LastIndex(part, "pod")
	if i < 0 || i > 0 && part[i-1] != '-' {
		return ""
	}
	uid := strings.ReplaceAll(strings.TrimSuffix(part[i+len("pod"):], ".slice"), "_", "-")
	if digits := strings.ReplaceAll(uid, "-", ""); len(digits) != 32 || !hexadecimal(digits) || len(uid) != 32 && len(uid) != 36 {
		return ""
	}
	return uid
}

// containerID finds the ID of a container: 64 hexadecimal digits, alone or behind the name of its runtime. CRI-O's monitor of a container
// (crio-conmon-ID) is no part of it.
func containerID(part string) string {
	part = strings.TrimSuffix(part, ".scope")
	if strings.Contains(part, "conmon") {
		return ""
	}
	id := part[strings.LastIndexByte(part, '-')+1:]
	if len(id) != 64 || !hexadecimal(id) {
		return ""
	}
	return id
}

func hexadecimal(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// unit is the innermost unit of systemd in a path; the path itself where there is none. It is never empty: the process is known to be no pod's.
func unit(path string) string {
	parts := strings.Split(path, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if strings.HasSuffix(parts[i], ".service") || strings.HasSuffix(parts[i], ".scope") {
			return parts[i]
		}
	}
	for i := len(parts) - 1; i >= 0; i-- {
		if parts[i] != "" && parts[i] != ".." {
			return parts[i]
		}
	}
	return "/"
}
