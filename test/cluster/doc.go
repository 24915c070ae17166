// Package cluster brings up a real Kubernetes cluster on one machine for the end-to-end tests (`make e2e-cluster`): etcd, API server,
// controller manager and scheduler, and workers with a kubelet, containerd and kube-proxy of their own.
//
//	c, err := cluster.Open(ctx, cluster.Config{Workers: 3})   // installs, builds (cached), starts the control plane
//	defer c.Close()
//	w := c.Workers[0]
//	err = w.Boot(ctx, boot)                                   // a software TPM with a captured boot; then containerd
//	err = w.StartKubelet(ctx)                                 // asks for a certificate by bootstrap token
//	err = c.Approve(ctx, w.Name)                              // as a person would; touchstone's join does it else
//	err = c.Joined(ctx, w)                                    // node Ready, pod network up
//
// A worker is a set of namespaces (net, mount, pid, uts, ipc, cgroup) on the kernel of this machine. Its kubelet and its trust agent see the
// machine that was captured (package machine): firmware log, IMA list, EFI variables, kernel facts, SMBIOS UUID and boot_id are mounted
// over the paths where a kernel has them. Its TPM is reached by a socket.
//
// Everything that is started is killed by the kernel when the test binary ends, by whatever means. Networks, control groups and files
// that an earlier run left behind are removed at the start; they are known by the prefix of their names. Only one cluster can run on
// a machine; a second one waits for the first to end.
//
// How to run one scenario, keep the cluster and look at it:
//
//	make e2e-cluster RUN=TestS1        # one scenario
//	E2E_KEEP=1 make e2e-cluster RUN=TestS1   # prints KUBECONFIG, stays until Ctrl-C
//
// Environment: E2E_MEMBERS is the number of control-plane members (default 3, with less than 12 GiB of memory 1). TOUCHSTONE_CACHE is where scripts/kubernetes keeps programs.
//
// Limits: Linux, Debian, root; cgroup v1 (hybrid) is what it was run on, v2 is written down but was not tried. The kubelet's resource
// eviction does not work here. There is no DNS (our chart needs none), and NetworkPolicies are accepted and not enforced.
package cluster
