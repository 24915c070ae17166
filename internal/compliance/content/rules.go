package content

import (
	"slices"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

const (
	high, medium, low = xccdf.SeverityHigh, xccdf.SeverityMedium, xccdf.SeverityLow
	worker, image     = 1, 2 // profiles, as bits
	both              = worker | image
)

// rule is one rule of the baseline.
type rule struct {
	name     string
	severity xccdf.Severity
	profiles int
	title    string
	why      string
	fix      string
	refs     string // words: controls of NIST SP 800-53, techniques of MITRE ATT&CK, CIS: and sections of CIS Kubernetes
	checks   []check
}

// suidPrograms are the SUID and SGID programs of Debian's own packages that a worker or an image may have.
const suidPrograms = `su|sudo|mount|umount|passwd|chsh|chfn|gpasswd|newgrp|sg|newuidmap|newgidmap|pkexec|fusermount3?|ping6?|expiry|chage|wall|write(\.ul)?|bsd-write|crontab|ssh-agent|dotlockfile|lockfile|at|` +
	`p?locate|mlocate|unix_chkpwd|pam_extrausers_chkpwd|mount\.(nfs|cifs|fuse|ntfs|ntfs-3g|ecryptfs_private)|ntfs-3g|utempter|postdrop|postqueue|exim4|pppd|bwrap`

// path are the folders in which the system looks for programs.
var path = []string{"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"}

const (
	sshDir, sshFile = "/etc/ssh(/sshd_config\\.d)?", "(sshd_config|.*\\.conf)"
	is              = `(?:[ \t]+|[ \t]*=[ \t]*)"?` // between a word and its value in sshd_config
	kubelet         = "/var/lib/kubelet"
	home            = "/root"
)

var rules = slices.Concat(packageRules, accountRules, fileRules, sshRules, kernelRules, kubeRules)

var packageRules = []rule{
	{"no_telnet", high, both, "No telnet", "It sends passwords in the clear.", "apt purge telnet telnetd inetutils-telnet inetutils-telnetd", "CM-7 SC-8",
		absent("telnet", "telnetd", "telnet-ssl", "telnetd-ssl", "inetutils-telnet", "inetutils-telnetd")},
	{"no_rsh", high, both, "No rsh, rlogin or rexec", "They believe what the other side says of itself.", "apt purge rsh-client rsh-server rsh-redone-client rsh-redone-server", "CM-7 IA-2",
		absent("rsh-client", "rsh-server", "rsh-redone-client", "rsh-redone-server")},
	{"no_nis", high, both, "No NIS", "It hands password hashes to whoever asks.", "apt purge nis ypserv ypbind-mt", "CM-7 IA-5", absent("nis", "ypserv", "ypbind-mt")},
	{"no_talk_tftp", medium, both, "No talk, tftp, finger or inetd", "Services without authentication that nothing here needs.",
		"apt purge talk talkd tftpd tftpd-hpa atftpd fingerd xinetd openbsd-inetd inetutils-inetd", "CM-7",
		absent("talk", "talkd", "tftpd", "tftpd-hpa", "atftpd", "fingerd", "xinetd", "openbsd-inetd", "inetutils-inetd")},
	{"no_compilers", low, image, "No compilers in the image", "Who breaks into a container builds tools with them.", "build in a stage of its own, and copy the result", "CM-7 T1027.004",
		absent("gcc", "gcc-10", "gcc-11", "gcc-12", "gcc-13", "gcc-14", "gcc-15", "g++", "g++-10", "g++-11", "g++-12", "g++-13", "g++-14", "g++-15", "build-essential", "clang", "tcc")},
	{"no_miners", high, both, "No mining software from packages", "Nobody mines here with a good reason.", "apt purge xmrig cpuminer ccminer cgminer bfgminer", "T1496",
		absent("xmrig", "cpuminer", "ccminer", "cgminer", "bfgminer")},
	{"no_ssh_server_in_image", medium, image, "No SSH server in the image", "A container is entered by its runtime, or not at all.", "apt purge openssh-server dropbear dropbear-bin", "CM-7 T1021.004",
		absent("openssh-server", "dropbear", "dropbear-bin")},
	{"apt_is_signed", high, both, "apt takes signed packages only", "An unsigned source installs what anybody on the way puts in.",
		"remove AllowUnauthenticated, AllowInsecureRepositories, AllowDowngradeToInsecureRepositories, AllowWeakRepositories, [trusted=yes] and Trusted: yes from /etc/apt", "CM-14 T1195.002", []check{
			never("/etc/apt", "apt\\.conf", aptUnsigned), never("/etc/apt/apt.conf.d", "[A-Za-z0-9_.-]+", aptUnsigned),
			never("/etc/apt", "sources\\.list", trustedLine), never("/etc/apt/sources.list.d", "[^/]*\\.list", trustedLine),
			never("/etc/apt/sources.list.d", "[^/]*\\.sources", `(?i)^Trusted:[ \t]*(yes|true|1|on|enable|with)`)}},
	{"audit_installed", medium, worker, "The audit daemon is installed", "Without it nobody knows who did what.", "apt install auditd; trust-agent audit rules install", "AU-12", []check{installed("auditd")}},
}

const (
	aptUnsigned = `(?i)^(?![ \t]*(?://|#))[^\n]*(AllowUnauthenticated|AllowInsecureRepositories|AllowDowngradeToInsecureRepositories|AllowWeakRepositories)[ \t]+"?(yes|true|[1-9]|on|enable|with)`
	trustedLine = `(?i)^[ \t]*deb(-src)?[ \t]+\[[^]\n]*trusted=(yes|true|1|on|enable|with)`
)

var accountRules = []rule{
	{"passwd_modes", high, both, "Only root writes accounts", "Who writes them is root.", "chown root:root /etc/passwd /etc/group; chmod 644 /etc/passwd /etc/group", "AC-6 T1136.001", []check{owned("/etc", "(passwd|group)-?", 0o022)}},
	{"shadow_modes", high, both, "Nobody but root and group shadow reads password hashes", "Who reads them tries passwords at leisure.",
		"chown root:shadow /etc/shadow /etc/gshadow; chmod 640 /etc/shadow /etc/gshadow", "AC-6 T1003.008", []check{owned("/etc", "g?shadow-?", 0o037), ofGroup("/etc", "g?shadow-?", "0|42", "root or shadow (42)")}},
	{"no_empty_passwords", high, both, "No account without a password", "Anybody can be it.", "passwd -l ACCOUNT", "IA-5 T1078.003", []check{never("/etc", "shadow", `^[^:\n]+::`), never("/etc", "passwd", `^[^:\n]+::`)}},
	{"only_root_is_0", high, both, "Only root has uid 0", "A second name for root is a back door.", "userdel ACCOUNT", "AC-6 T1136.001", []check{never("/etc", "passwd", `^(?!root:)[^:\n]+:[^:\n]*:0+:`)}},
	{"no_root_password_in_image", medium, image, "Root has no password in the image", "All who have the image can try to find it.", "passwd -l root", "IA-5(7) T1552.001", []check{never("/etc", "(shadow|passwd)", `^root:!?[$_./0-9A-Za-z]{13}`)}},
	{"no_rhosts", high, both, "No host is believed by its name", "Who takes one host has all that believe it.", "rm /etc/hosts.equiv /etc/ssh/shosts.equiv ~root/.rhosts ~root/.shosts", "IA-2 T1078", []check{
		noFile("/etc", "hosts\\.equiv"), noFile("/etc/ssh", "shosts\\.equiv"), noFile(home, "\\.[rs]hosts")}},
	{"sudo_asks", medium, worker, "sudo does not trust everybody", "A broken account is root at once.", "remove NOPASSWD for ALL from /etc/sudoers and /etc/sudoers.d", "AC-6 T1548.003", []check{
		never("/etc", "sudoers", nopasswd), never("/etc/sudoers.d", "[^.~/]+", nopasswd)}},
}

const nopasswd = `^[ \t]*ALL[ \t][^\n]*NOPASSWD`

var fileRules = []rule{
	{"no_preload", high, both, "No library is preloaded into all programs", "It is how rootkits hide.", "rm /etc/ld.so.preload, and find who made it", "SI-7 T1574.006", []check{noFile("/etc", "ld\\.so\\.preload")}},
	{"suid_programs", high, both, "In the folders of programs only known ones are SUID or SGID", "A new one is a way to root.", "chmod a-s FILE, and find who set it", "AC-6 T1548.001",
		each(append([]string{"/tmp", "/var/tmp"}, path...), func(dir string) check { return without(dir, suidPrograms, 0o6000) })},
	{"program_modes", high, both, "Only root writes the folders of programs", "Others put in a program that root will start.", "chown root:root FOLDER; chmod go-w FOLDER", "AC-6 T1574", each(path, folder)},
	{"tmp_sticky", medium, both, "In the folders for temporary files nobody touches those of others", "Programs of root read and write there.", "chmod 1777 /tmp /var/tmp", "AC-6", each([]string{"/tmp", "/var/tmp"}, sticky)},
	{"cron_modes", high, both, "Only root writes cron's tables", "Who writes there runs what he likes as root.", "chown root:root FILE; chmod go-w FILE", "AC-6 T1053.003",
		append(each([]string{"/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly"}, onlyRoot), owned("/etc", "crontab", 0o022))},
	{"unit_modes", high, both, "Only root writes systemd's units", "Who writes there runs what he likes as root.", "chown root:root FILE; chmod go-w FILE", "AC-6 T1543.002",
		each([]string{"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}, onlyRoot)},
	{"no_credentials_in_image", high, image, "No private keys or credentials in the image", "All who have the image have them.", "build anew without them, and revoke them: they stay in older layers", "IA-5(7) T1552.004", []check{
		noFile(home+"/.ssh", sshKey), noFile("/home/[^/]+/\\.ssh", sshKey), noFile(home+"/.aws", "credentials"), noFile(home+"/.azure", "(accessTokens|msal_token_cache)\\.json"),
		noFile(home+"/.config/gcloud", "(credentials\\.db|application_default_credentials\\.json)"), noFile(home+"/.docker", "config\\.json"), noFile(home+"/.kube", "config"), noFile(home, "\\.(netrc|git-credentials|pgpass)"),
		noFile("/etc/ssh", "ssh_host_[a-z0-9]+_key")}},
}

const sshKey = `(id_[a-z0-9_]+|[^/]*\.pem)`

var sshRules = []rule{
	{"sshd_root", high, worker, "Root does not log in by SSH with a password", "Root's name is known to all who guess.", "PermitRootLogin no in /etc/ssh/sshd_config", "AC-17 T1110", []check{never(sshDir, sshFile, "(?i)^[ \\t]*PermitRootLogin"+is+"yes")}},
	{"sshd_empty_passwords", high, worker, "SSH takes no empty passwords", "Anybody is in.", "PermitEmptyPasswords no in /etc/ssh/sshd_config", "AC-17 T1078.003", []check{never(sshDir, sshFile, "(?i)^[ \\t]*PermitEmptyPasswords"+is+"yes")}},
	{"sshd_host_based", medium, worker, "SSH does not believe other hosts", "Who takes one host has all.", "HostbasedAuthentication no, IgnoreRhosts yes in /etc/ssh/sshd_config", "IA-2 T1021.004", []check{
		never(sshDir, sshFile, "(?i)^[ \\t]*(HostbasedAuthentication"+is+"yes|IgnoreRhosts"+is+"no)")}},
	{"sshd_keys", high, worker, "Only root reads the host keys of SSH", "Who has them is this worker.", "chmod 600 /etc/ssh/ssh_host_*_key", "AC-6 T1552.004", []check{owned("/etc/ssh", "ssh_host_[a-z0-9]+_key", 0o077)}},
}

var kernelRules = []rule{
	setting("aslr", high, "Addresses are random", "Exploits need to know where things are.", "SI-16 T1068", exactly("kernel.randomize_va_space", 2)),
	setting("kptr_restrict", medium, "Kernel addresses are hidden", "Exploits of the kernel need them.", "SI-16 T1068", atLeast("kernel.kptr_restrict", 1)),
	setting("dmesg_restrict", low, "Only root reads the kernel's log", "It tells addresses and hardware.", "AC-3 T1082", atLeast("kernel.dmesg_restrict", 1)),
	setting("unprivileged_bpf", medium, "Only root loads BPF programs", "The verifier of BPF has had many holes.", "AC-6 T1068", ifThere(atLeast("kernel.unprivileged_bpf_disabled", 1))),
	setting("kexec", high, "No other kernel is loaded", "kexec starts a kernel that nothing measured.", "SI-7 T1542", ifThere(exactly("kernel.kexec_load_disabled", 1))),
	setting("protected_links", medium, "Links in common folders are not followed blindly", "Programs of root write where others point.", "AC-6 T1068", atLeast("fs.protected_symlinks", 1), atLeast("fs.protected_hardlinks", 1)),
	setting("suid_dumpable", medium, "SUID programs leave no dumps", "Dumps hold what the program may read.", "AC-6 T1003", exactly("fs.suid_dumpable", 0)),
	setting("syncookies", medium, "SYN floods are withstood", "A few packets stop the node.", "SC-5 T1499.001", atLeast("net.ipv4.tcp_syncookies", 1)),
	setting("no_redirects", medium, "The node takes no ICMP redirects", "Others on the net turn its traffic to themselves.", "SC-7 T1557", exactly("net.ipv4.conf.all.accept_redirects", 0)),
	setting("no_source_route", medium, "The node takes no source routing", "Packets go around filters.", "SC-7 T1557", exactly("net.ipv4.conf.all.accept_source_route", 0)),
}

var kubeRules = []rule{
	{"kubelet_anonymous", high, worker, "The kubelet takes no anonymous requests", "Whoever reaches it runs commands in pods.", "authentication.anonymous.enabled: false in /var/lib/kubelet/config.yaml", "CIS:4.2.1 T1609", []check{
		never(kubelet, "config\\.yaml", `(?i)\banonymous["']?:\s*\{?\s*["']?enabled["']?:\s*["']?(true|yes|on)\b`)}},
	{"kubelet_authorization", high, worker, "The kubelet asks who may do what", "AlwaysAllow lets every client do all.", "authorization.mode: Webhook in /var/lib/kubelet/config.yaml", "CIS:4.2.2 T1609", []check{
		never(kubelet, "config\\.yaml", `\bmode["']?:\s*["']?AlwaysAllow\b`)}},
	{"kubelet_read_only_port", medium, worker, "The kubelet has no port without authentication", "It tells all pods of the node to anybody.", "readOnlyPort: 0 in /var/lib/kubelet/config.yaml", "CIS:4.2.4 T1613", []check{
		never(kubelet, "config\\.yaml", `\breadOnlyPort["']?:\s*["']?[1-9]`)}},
	{"kubelet_modes", high, worker, "Only root reads the kubelet's configuration and keys", "Who has its key is the node.", "chmod 600 /var/lib/kubelet/config.yaml /var/lib/kubelet/pki/*.pem /var/lib/kubelet/pki/*.key /etc/kubernetes/*.conf", "CIS:4.1.5 CIS:4.1.9 T1552.004", []check{
		owned(kubelet, "config\\.yaml", 0o077), owned(kubelet+"/pki", ".*\\.(key|pem)(\\.tmp)?", 0o077), owned("/etc/kubernetes", ".*\\.conf", 0o077)}},
	{"static_pods_modes", high, worker, "Only root writes static pods", "Who writes there runs what he likes as root.", "chown root:root FILE; chmod 600 /etc/kubernetes/manifests/*", "CM-5 T1610", []check{onlyRoot("/etc/kubernetes/manifests")}},
	{"runtime_modes", high, worker, "Only root writes the configuration of container runtime and network", "It decides what starts each container.", "chown root:root FILE; chmod go-w /etc/containerd/* /etc/crio/* /etc/cni/net.d/*", "CM-5 T1610",
		each([]string{"/etc/containerd", "/etc/containerd/conf.d", "/etc/crio", "/etc/crio/crio.conf.d", "/etc/cni/net.d"}, onlyRoot)},
}
