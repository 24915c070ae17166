package imagebuild

// Architectures that images are made for.
var Architectures = []string{"amd64", "arm64"}

// nonroot is the user and group that programs run as unless the pod says otherwise.
const nonroot = 65532

// Spec says what one image holds.
type Spec struct {
	// Name of the image, below the repository that the user names.
	Name string
	// Title is the label by which people recognise it.
	Title string
	// Programs are folders of cmd/, installed in /usr/bin. The first one is the entry point.
	Programs []string
	// Entries are folders and links that the programs need beside the usual ones.
	Entries []Entry
}

// Entry is a folder of an image, or a symbolic link when it has a target.
type Entry struct {
	Path   string // without a slash in front
	Target string
	Mode   int64 // of a folder; 0 means 0755
}

// Specs are the images of Touchstone.
var Specs = []Spec{
	{
		Name: "aias", Title: "Touchstone AIAS: judges how workers booted and what they run",
		// touchstone is there for `kubectl exec`: references come to AIAS through it.
		Programs: []string{"aias", "touchstone"},
		Entries:  []Entry{{Path: "var/lib/aias"}},
	},
	{
		Name: "trust-agent", Title: "Touchstone trust agent: proves with the TPM how a worker booted and what it runs",
		Programs: []string{"trust-agent", "tpm-device-plugin", "ctd-decoder"},
		// What the agent reads of its host lies below /host. The kernel says the same to every container in proc and most of sysfs, so that
		// links do and no folder of the host is needed; securityfs, the variables of the firmware and the kubelet's folder are mounted.
		Entries: []Entry{
			{Path: "host/proc", Target: "/proc"},
			{Path: "host/sys/class", Target: "/sys/class"},
			{Path: "host/sys/module", Target: "/sys/module"},
			{Path: "host/sys/kernel/security"},
			{Path: "host/sys/firmware/efi/efivars"},
			{Path: "host/var/lib/kubelet/pki"},
			{Path: "var/lib/trust-agent", Mode: 0o700},
			{Path: "run/trust-agent"},
		},
	}, {
		Name: "trust-controller", Title: "Touchstone trust-controller: makes a Kubernetes cluster obey the verdicts of AIAS",
		Programs: []string{"trust-controller"},
	},
}
