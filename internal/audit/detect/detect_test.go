package detect

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/record"
)

// shippedSet compiles what ships.
func shippedSet(t testing.TB) *Set {
	t.Helper()
	s, err := Compile(Shipped())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestShippedRulesAreComplete: each rule says what it is, what it costs and when it is wrong.
func TestShippedRulesAreComplete(t *testing.T) {
	s := shippedSet(t)
	for _, r := range s.Rules() {
		d := r.Doc
		if d.Name == "" || d.Description == "" || len(r.Techniques) == 0 || !r.Shipped || d.Custom == nil {
			t.Errorf("%s: rule %s: want name, description, an ATT&CK technique and our section", d.File, d.Key())
		}
		if r.Effect.Effect != None && (len(d.FalsePositives) == 0 || len(d.Fields) == 0) {
			t.Errorf("%s: rule %s: want false positives and fields", d.File, d.Key())
		}
	}
	if n := len(s.rules.Ungated()); n > 30 {
		t.Errorf("%d rules are tried with every event", n)
	}
	var names []string
	for _, i := range s.rules.Ungated() {
		names = append(names, s.list[i].Doc.Name)
	}
	t.Logf("%d rules; tried with every event: %s", len(s.list), strings.Join(names, " "))
}

var update = flag.Bool("update", false, "write docs/detections.md anew")

const catalogueFile = "../../../docs/detections.md"

// TestCatalogue: the page for people says what the rules do.
func TestCatalogue(t *testing.T) {
	got := Catalogue(shippedSet(t))
	if *update {
		if err := os.WriteFile(catalogueFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(catalogueFile)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the rules say: go test ./internal/audit/detect -run TestCatalogue -update", catalogueFile)
	}
}

// event parses records of one event; each line lacks "type=... msg=audit(...): ".
func event(t testing.TB, lines ...string) *record.Event {
	t.Helper()
	var raw strings.Builder
	for _, l := range lines {
		kind, body, _ := strings.Cut(l, " ")
		fmt.Fprintf(&raw, "type=%s msg=audit(1795000336.990:7): %s\n", kind, body)
	}
	e, err := record.Parse([]byte(raw.String()))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var now = time.Unix(1795000337, 0)

// names returns the names of the rules that an event sets off.
func names(n *Node, e *record.Event, c chain.Context) []string {
	var out []string
	for _, d := range n.Event(e, &c, now).Detections {
		out = append(out, d.Rule.Doc.Name)
	}
	slices.Sort(out)
	return out
}

var (
	aPod  = chain.Context{Namespace: "shop", Pod: "web-1", PodUID: "6f", Container: "web"}
	aUnit = chain.Context{Unit: "kubelet.service"}
)

// TestEvents: events as kernels write them, each with the rules that it sets off. What can really be done is done in test/audit.
func TestEvents(t *testing.T) {
	const connect = "SYSCALL arch=c000003e syscall=42 success=yes exit=0 a0=3 a1=7ffc a2=2a a3=0 items=1 ppid=1 pid=9 auid=4294967295 uid=0 euid=0 ses=4294967295 comm=\"x\" exe=%q key=(null)"
	const containerd = "SOCKADDR saddr=01002F72756E2F636F6E7461696E6572642F636F6E7461696E6572642E736F636B00"
	const open = "SYSCALL arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c a1=7f a2=%s a3=0 items=1 ppid=1 pid=9 auid=4294967295 uid=0 euid=0 ses=4294967295 comm=\"x\" exe=%q key=(null)"
	for _, c := range []struct {
		name  string
		where chain.Context
		lines []string
		want  []string
	}{
		{"pod at the runtime's socket", aPod, []string{fmt.Sprintf(connect, "/x"), containerd}, []string{"runtime-socket-pod"}},
		{"kubelet at the runtime's socket", aUnit, []string{fmt.Sprintf(connect, "/usr/bin/kubelet"), containerd}, nil},
		{"a pod that calls its program kubelet", aPod, []string{fmt.Sprintf(connect, "/usr/bin/kubelet"), containerd}, []string{"runtime-socket-pod"}},
		{"by hand", aUnit, []string{fmt.Sprintf(connect, "/usr/bin/crictl"), containerd}, []string{"runtime-socket-host"}},
		{"setns in a pod", aPod, []string{`SYSCALL arch=c000003e syscall=308 success=yes exit=0 a0=3 a1=20000 a2=0 a3=0 items=0 ppid=1 pid=9 auid=4294967295 uid=0 comm="x" exe="/usr/bin/nsenter" key=(null)`}, []string{"escape-setns"}},
		{"setns by number of x32", aPod, []string{`SYSCALL arch=c000003e syscall=1073742132 success=yes exit=0 a0=3 a1=0 items=0 pid=9 uid=0 comm="x" exe="/x" key=(null)`}, []string{"escape-setns"}},
		{"setns of runc", aPod, []string{`SYSCALL arch=c000003e syscall=308 success=yes exit=0 a0=3 a1=0 items=0 ppid=1 pid=9 auid=4294967295 uid=0 comm="runc:[1:CHILD]" exe="/usr/sbin/runc" key=(null)`}, nil},
		{"mount of a CSI driver", aPod, []string{`SYSCALL arch=c00000b7 syscall=40 success=yes exit=0 a0=0 a1=0 items=1 ppid=1 pid=9 uid=0 comm="csi" exe="/csi" key=(null)`}, []string{"escape-mount"}},
		{"preload, relative to the working directory", aUnit, []string{fmt.Sprintf(open, "241", "/usr/bin/vim"), `CWD cwd="/etc"`, `PATH item=0 name="./ld.so.preload" inode=1 mode=0100644 ouid=0 ogid=0 nametype=CREATE`}, []string{"persistence-preload"}},
		{"preload in a pod's own file system", aPod, []string{fmt.Sprintf(open, "241", "/bin/sh"), `CWD cwd="/"`, `PATH item=0 name="/etc/ld.so.preload" inode=1 mode=0100644 ouid=0 ogid=0 nametype=CREATE`}, nil},
		{"shadow read", aUnit, []string{fmt.Sprintf(open, "0", "/usr/bin/python3.11"), `CWD cwd="/"`, `PATH item=0 name="/etc/shadow" nametype=NORMAL`}, []string{"shadow-read"}},
		{"a folder that only holds the file", aUnit, []string{fmt.Sprintf(open, "0", "/usr/bin/python3.11"), `CWD cwd="/"`, `PATH item=0 name="/etc/shadow" nametype=PARENT`}, nil},
		{"module loaded", aUnit, []string{`SYSCALL arch=c000003e syscall=313 success=yes exit=0 a0=3 items=0 ppid=1 pid=9 auid=1000 uid=0 comm="x" exe="/opt/x" key="ts-module"`, `KERN_MODULE name="rootkit"`}, []string{"module-load"}},
		{"module loaded by modprobe", aUnit, []string{`SYSCALL arch=c000003e syscall=313 success=yes exit=0 a0=3 items=0 ppid=1 pid=9 auid=1000 uid=0 comm="modprobe" exe="/usr/bin/kmod" key="ts-module"`, `KERN_MODULE name="vfat"`}, nil},
		{"kexec", aUnit, []string{`SYSCALL arch=c000003e syscall=320 success=yes exit=0 a0=3 a1=4 items=0 ppid=1 pid=9 auid=1000 uid=0 comm="kexec" exe="/usr/sbin/kexec" key="ts-kexec"`}, []string{"kexec"}},
		{"TPM", aUnit, []string{fmt.Sprintf(open, "2", "/usr/bin/tpm2"), `CWD cwd="/"`, `PATH item=0 name="/dev/tpmrm0" nametype=NORMAL`}, []string{"tpm-use"}},
		{"TPM by the agent", aUnit, []string{fmt.Sprintf(open, "2", "/usr/bin/trust-agent"), `CWD cwd="/"`, `PATH item=0 name="/dev/tpmrm0" nametype=NORMAL`}, nil},
		{"TPM by a pod's trust-agent", aPod, []string{fmt.Sprintf(open, "2", "/usr/bin/trust-agent"), `CWD cwd="/"`, `PATH item=0 name="/dev/tpmrm0" nametype=NORMAL`}, []string{"tpm-use"}},
		{"physical memory", aUnit, []string{fmt.Sprintf(open, "0", "/opt/x"), `CWD cwd="/"`, `PATH item=0 name="/dev/mem" nametype=NORMAL`}, []string{"physical-memory"}},
		{"MSR", aUnit, []string{fmt.Sprintf(open, "2", "/opt/x"), `CWD cwd="/"`, `PATH item=0 name="/dev/cpu/0/msr" nametype=NORMAL`}, []string{"mining-msr"}},
		{"IMA policy", aUnit, []string{fmt.Sprintf(open, "1", "/bin/sh"), `CWD cwd="/"`, `PATH item=0 name="/sys/kernel/security/ima/policy" nametype=NORMAL`}, []string{"ima-tampering"}},
		{"root over SSH", aUnit, []string{`LOGIN pid=9 uid=0 old-auid=4294967295 auid=0 tty=(none) old-ses=4294967295 ses=5 res=1`,
			`SYSCALL arch=c000003e syscall=1 success=yes exit=1 a0=3 items=0 ppid=1 pid=9 auid=0 uid=0 ses=5 comm="sshd" exe="/usr/sbin/sshd" key=(null)`}, []string{"ssh-root"}},
		{"root by cron", aUnit, []string{`LOGIN pid=9 uid=0 old-auid=4294967295 auid=0 tty=(none) old-ses=4294967295 ses=5 res=1`,
			`SYSCALL arch=c000003e syscall=1 success=yes exit=1 a0=3 items=0 ppid=1 pid=9 auid=0 uid=0 ses=5 comm="cron" exe="/usr/sbin/cron" key=(null)`}, nil},
		{"audit off", aUnit, []string{`CONFIG_CHANGE op=set audit_enabled=0 old=1 auid=1000 ses=3 res=1`}, []string{"audit-off"}},
		{"our rules removed", aUnit, []string{`CONFIG_CHANGE op=remove_rule key="ts-exec" list=4 res=1 auid=0 ses=1`}, []string{"audit-rules-removed"}},
		{"rules of others removed", aUnit, []string{`CONFIG_CHANGE op=remove_rule key="mine" list=4 res=1 auid=0 ses=1`}, nil},
		{"forged: a program says that audit is off", aUnit, []string{`USER_AVC pid=9 uid=0 auid=1000 ses=3 msg='op=set audit_enabled=0 old=1 res=1 type=CONFIG_CHANGE exe="/dev/shm/x"'`}, nil},
		{"forged: a program writes a whole event into its message", aUnit, []string{`USER_CMD pid=9 uid=0 auid=1000 ses=3 msg='x' type=SYSCALL syscall=308 success=yes exe="/x" key="ts-setns" op=set audit_enabled=0 old=1 res=1'`}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := names(shippedSet(t).NewNode(), event(t, c.lines...), c.where); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestBudget: a storm of subjects is counted, not kept.
func TestBudget(t *testing.T) {
	n := shippedSet(t).NewNode()
	var kept, over int
	for i := range 1000 {
		e := event(t, fmt.Sprintf(`SYSCALL arch=c000003e syscall=175 success=no exit=-1 a0=1 items=0 pid=9 uid=0 comm="x" exe="/tmp/%d" key=(null)`, i))
		for _, d := range n.Event(e, &aUnit, now).Detections {
			if d.Over {
				over++
			} else {
				kept++
			}
		}
	}
	if kept != budgetSubjects || over != 1000-budgetSubjects {
		t.Errorf("kept %d and counted %d, want %d and %d", kept, over, budgetSubjects, 1000-budgetSubjects)
	}
	e := event(t, `SYSCALL arch=c000003e syscall=175 success=no exit=-1 a0=1 items=0 pid=9 uid=0 comm="x" exe="/tmp/0" key=(null)`)
	if d := n.Event(e, &aUnit, now.Add(2*budgetTime)).Detections; len(d) != 1 || d[0].Over || d[0].Subject != "exe=/tmp/0" {
		t.Errorf("after the minute: got %+v, want one detection of exe=/tmp/0", d)
	}
}

// TestFixed: what ends a detection is told.
func TestFixed(t *testing.T) {
	s := shippedSet(t)
	out := s.NewNode().Event(event(t, `CONFIG_CHANGE op=set audit_enabled=1 old=0 auid=1000 ses=3 res=1`), &aUnit, now)
	if len(out.Detections) != 0 || !slices.Equal(out.Fixed, []string{"audit-off"}) {
		t.Errorf("got %+v, want audit-off fixed", out)
	}
	if !slices.Contains(s.FixedByBoot(), "module-load") {
		t.Errorf("FixedByBoot: got %q, want module-load among them", s.FixedByBoot())
	}
}

// TestRefusedRules: a rule that would believe forged text, or fail on it, is not taken.
func TestRefusedRules(t *testing.T) {
	rule := func(detection, ours string) string {
		return "title: t\nname: r\nlogsource: {product: linux, service: auditd}\ndetection: {s: " + detection + ", condition: s}\n" + ours
	}
	for name, c := range map[string]struct{ text, want string }{
		"claims without saying so": {rule("{msg.acct: root}", ""), "userspace: true"},
		"fails on claims":          {rule("{msg.acct: root}", "touchstone: {effect: fail, clears: operator, userspace: true}"), "can warn, not fail"},
		"unknown field":            {rule("{ParentImage: x}", ""), "no such field"},
		"unknown system call":      {rule("{syscall: openn}", ""), `no system call "openn"`},
		"unknown record":           {rule("{type: SYSCALLS}", ""), "no record of type"},
		"unknown key of ours":      {rule("{syscall: open}", "touchstone: {effect: warn, clears: time, fore: 1h}"), "unknown field"},
		"time without for":         {rule("{syscall: open}", "touchstone: {effect: warn, clears: time}"), "needs for"},
		"fixed by nothing":         {rule("{syscall: open}", "touchstone: {effect: warn, clears: fixed}"), "go together"},
		"fixed by no rule":         {rule("{syscall: open}", "touchstone: {effect: warn, clears: fixed, fixedBy: [q]}"), "neither boot nor a rule"},
		"another product":          {strings.Replace(rule("{syscall: open}", ""), "linux", "windows", 1), "want linux"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile([]Source{{Name: "r.yml", Data: []byte(c.text)}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

// BenchmarkEvent is what the shipped rules cost for an ordinary event.
func BenchmarkEvent(b *testing.B) {
	n := shippedSet(b).NewNode()
	events := []*record.Event{
		event(b, `SYSCALL arch=c000003e syscall=59 success=yes exit=0 a0=55b6 a1=55b7 a2=55b8 a3=0 items=2 ppid=22969 pid=22992 auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295 comm="ls" exe="/usr/bin/ls" key="ts-exec"`,
			`EXECVE argc=2 a0="ls" a1="-l"`, `CWD cwd="/root"`, `PATH item=0 name="/usr/bin/ls" inode=1 dev=fe:00 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`, `PROCTITLE proctitle=6C73002D6C`),
		event(b, `SYSCALL arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c a1=7f a2=0 a3=0 items=1 ppid=1 pid=9 auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295 comm="x" exe="/usr/bin/x" key="ts-files"`,
			`CWD cwd="/"`, `PATH item=0 name="/etc/hosts" inode=1 dev=fe:00 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`, `PROCTITLE proctitle="x"`),
		event(b, `SYSCALL arch=c000003e syscall=42 success=yes exit=0 a0=3 a1=7ffc a2=2a a3=0 items=0 ppid=1 pid=9 auid=4294967295 uid=0 euid=0 ses=4294967295 comm="x" exe="/usr/bin/x" key="ts-net"`, `SOCKADDR saddr=0200005B7F0000010000000000000000`, `PROCTITLE proctitle="x"`),
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n.Event(events[i%len(events)], &aUnit, now)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
