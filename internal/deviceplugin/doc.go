// Package deviceplugin offers one device of the host, the TPM, to pods as a resource, by the kubelet's device plugin API (v1beta1).
//
// It exists because a container that is not privileged cannot open a device of the host that is merely mounted into it: its cgroup forbids
// it. The kubelet has the container runtime make the device and allow it, for containers that ask for the resource. The plugin itself
// never opens the device; it only looks whether the kernel has one.
package deviceplugin
