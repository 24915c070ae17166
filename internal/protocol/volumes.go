package protocol

// PathVolumes is what the workers say of their volumes, for operators: GET -> VolumeList.
const PathVolumes = "/v1/volumes"

// VolumeList answers PathVolumes: all enrolled nodes, by name.
type VolumeList struct {
	Nodes []NodeVolumes `json:"nodes"`
}

// NodeVolumes are the volumes of one node, as its last Evidence claims them.
type NodeVolumes struct {
	Node string `json:"node"`
	// Problem is why nothing is known, or not all.
	Problem string   `json:"problem,omitempty"`
	Volumes []Volume `json:"volumes"`
}

// Volume is a file system that is mounted, or swap space.
type Volume struct {
	Points    []string `json:"points,omitempty"` // mount points
	Swap      bool     `json:"swap,omitempty"`
	Device    string   `json:"device"`
	Type      string   `json:"type"`
	Size      uint64   `json:"size,omitempty"` // bytes
	Encrypted string   `json:"encrypted"`      // yes, no or unknown
	Why       string   `json:"why,omitempty"`
	Layers    []string `json:"layers,omitempty"` // from the file system down
	// Containers are the LUKS volumes that it lies on.
	Containers []Container `json:"containers,omitempty"`
}

// Container is a LUKS volume.
type Container struct {
	Device    string   `json:"device"`
	UUID      string   `json:"uuid,omitempty"`
	Format    string   `json:"format,omitempty"` // LUKS1 or LUKS2
	Cipher    string   `json:"cipher,omitempty"`
	Integrity string   `json:"integrity,omitempty"`
	Bindings  []string `json:"bindings,omitempty"` // what opens it, a key slot each
	Why       string   `json:"why,omitempty"`      // why they are not known
}
