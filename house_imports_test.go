package touchstone_test

import (
	"go/ast"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// way is the one way through the house, left to right: what a worker's bytes pass until they are a Result. A package imports
// packages of its own station and of those before it, never of one behind it, not even through others.
var way = []struct {
	station  string
	packages []string
}{
	{"parse", []string{"tpm", "eventlog", "ima", "uefi", "kmod", "intel", "assettag", "imagekey", "luks", "audit/record", "compliance/xccdf", "compliance/content", "compliance/tailoring", "compliance/verdict"}},
	{"evidence", []string{"evidence"}},
	{"claims", []string{"claims"}},
	{"values", []string{"reference", "policy"}},
	{"appraise", []string{"appraisal"}},
	{"result", []string{"result", "release", "verifier"}},
	{"serve", []string{"store", "keystore", "ledger", "backup", "nbde", "escrow", "authority"}},
	{"enforce", []string{"cluster"}},
}

// apart lists what must not know each other for reasons other than the way: the worker's side and the Verifier's side share Evidence
// and the protocol, nothing else.
var apart = []struct {
	pkg    string
	never  []string
	reason string
}{
	{"internal/agent", []string{"internal/claims", "internal/appraisal", "internal/policy", "internal/reference", "internal/verifier", "internal/result", "internal/authority", "internal/store", "internal/operator"},
		"the worker does not judge itself"},
	{"cmd/trust-agent", []string{"internal/appraisal", "internal/policy", "internal/reference", "internal/verifier", "internal/authority", "internal/store"},
		"the worker does not judge itself"},
	{"internal/authority", []string{"internal/agent", "internal/operator"}, "AIAS is not its own client"},
	{"cmd/aias", []string{"internal/agent"}, "AIAS is not its own client"},
	{"internal/operator", []string{"internal/agent", "internal/authority", "internal/store", "internal/verifier"}, "a client knows the protocol only"},
	{"internal/protocol", []string{"internal/agent", "internal/authority", "internal/store", "internal/verifier", "internal/appraisal", "internal/policy", "internal/reference", "internal/operator"},
		"messages do not depend on those who send them"},
	{"internal/verifier", []string{"internal/tpm/device", "internal/store"}, "appraisal does no I/O"},
	{"cmd/trust-agent", []string{"internal/deviceplugin"}, "the agent does not carry gRPC for a plugin beside it"},
	{"internal/version", []string{"internal", "cmd", "api"}, "everything may import it"},
	{"cmd", []string{"internal/imagebuild"}, "what packs the programs is no part of them"},
}

// pure are the packages that turn bytes into values and values into verdicts: same input, same output. They may not import what is in
// impure, and of this module only each other and values.
var (
	pure   = []string{"tpm", "eventlog", "ima", "uefi", "kmod", "intel", "assettag", "luks", "audit/record", "compliance/xccdf", "compliance/content", "compliance/tailoring", "compliance/verdict", "claims", "policy", "appraisal"}
	values = []string{"evidence", "reference", "version"} // their types are values; only their loaders read files
	impure = []string{"os", "os/exec", "os/signal", "io/ioutil", "net", "net/http", "net/rpc", "syscall", "golang.org/x/sys/unix",
		"log", "log/slog", "plugin", "unsafe", "database/sql", "testing"}
	clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}
)

// showsBoots are the packages that may carry files of test/ into a program: they show the product at work on a real boot, and a second
// copy of the same files would drift away.
var showsBoots = map[string]string{
	"internal/demo":  "the demo boots its workers with captured boots",
	"internal/fleet": "the simulated fleet attests captured boots",
}

// dependencies are the modules that code of this repository may import, with the reason why we do not write it ourselves.
var dependencies = map[string]string{
	"github.com/google/go-tpm":               "TPM commands and software make-credential",
	"github.com/fxamacker/cbor/v2":           "Evidence: deterministic CBOR with strict limits",
	"filippo.io/nistec":                      "disk keys: whole points on P-521, which crypto/ecdh does not give",
	"github.com/go-jose/go-jose/v4":          "Attestation Results: JWS with the algorithms named at parse",
	"github.com/smallstep/pkcs7":             "Authenticode and other CMS signatures",
	"github.com/spf13/cobra":                 "command line",
	"github.com/spf13/pflag":                 "command line, comes with cobra",
	"modernc.org/sqlite":                     "embedded database without cgo",
	"github.com/prometheus/client_golang":    "metrics",
	"sigs.k8s.io/yaml":                       "policies and configuration: YAML with JSON's rules",
	"github.com/klauspost/compress":          "zstd in Debian packages and kernel images",
	"github.com/therootcompany/xz":           "xz in Debian packages, kernel images and modules",
	"github.com/google/go-cmp":               "differences in test messages",
	"github.com/miekg/pkcs11":                "tokens that keep the key-encryption key, in builds with the tag pkcs11",
	"filippo.io/age":                         "backups: encryption of a stream to keys and passphrases",
	"github.com/transparency-dev/tessera":    "the ledger: append-only Merkle log in tiles",
	"github.com/transparency-dev/merkle":     "proofs of the ledger",
	"github.com/transparency-dev/formats":    "checkpoints of the ledger",
	"k8s.io/klog/v2":                         "what the ledger's library and client-go log with",
	"golang.org/x/mod":                       "signed notes, the form of checkpoints",
	"golang.org/x/sys":                       "system calls of the agent",
	"golang.org/x/term":                      "terminal width",
	"golang.org/x/crypto":                    "algorithms outside the standard library",
	"golang.org/x/crypto/x509roots/fallback": "public roots for registries, where a container image has none",
	"golang.org/x/sync":                      "errgroup, singleflight",
	"golang.org/x/time":                      "rate limits",
	"sigs.k8s.io/controller-runtime":         "controllers, caches and webhooks of the Kubernetes side",
	"k8s.io/api":                             "the types of Kubernetes",
	"k8s.io/apimachinery":                    "the types of Kubernetes",
	"k8s.io/apiextensions-apiserver":         "the types of Kubernetes",
	"k8s.io/client-go":                       "client of Kubernetes",
	"k8s.io/kubelet":                         "the kubelet's API for device plugins",
	"google.golang.org/grpc":                 "what that API speaks",
	"github.com/go-logr/logr":                "how controller-runtime is given the logger",
	"k8s.io/utils":                           "clocks and pointers of the Kubernetes side",
	"github.com/google/go-containerregistry": "container images: build, read, push",
	"github.com/containers/ocicrypt":         "cipher of encrypted layers, and the protocol of key providers",
	"k8s.io/cri-api":                         "the container runtime's API, to remove images",
	"github.com/pelletier/go-toml/v2":        "configuration of containerd",
	"google.golang.org/protobuf":             "what containerd tells a decoder",
	"github.com/opencontainers/go-digest":    "a type of ocicrypt's",
	"github.com/opencontainers/image-spec":   "a type of ocicrypt's",
	"go.opentelemetry.io/proto/otlp":         "export of audit events: the messages of OTLP",
}

// graph maps each package of the module to what its code (not its tests) imports; both relative to the module.
func (h *house) graph() map[string]map[string]bool {
	g := map[string]map[string]bool{}
	for _, f := range h.goes {
		if f.test {
			continue
		}
		if g[f.pkg] == nil {
			g[f.pkg] = map[string]bool{}
		}
		for _, imported := range f.imports {
			if rel, ok := strings.CutPrefix(imported, module+"/"); ok {
				g[f.pkg][rel] = true
			}
		}
	}
	return g
}

// closure returns each package of the module that pkg needs, with the chain of imports that leads there.
func closure(g map[string]map[string]bool, pkg string) map[string]string {
	chains := map[string]string{pkg: pkg}
	for queue := []string{pkg}; len(queue) > 0; queue = queue[1:] {
		for _, next := range slices.Sorted(maps.Keys(g[queue[0]])) {
			if _, seen := chains[next]; !seen {
				chains[next] = chains[queue[0]] + " -> " + next
				queue = append(queue, next)
			}
		}
	}
	delete(chains, pkg)
	return chains
}

// within reports whether pkg is tree or lies below it. The TPM device is no part of package tpm, which only verifies; packages that
// only help tests (imatest) belong to no tree.
func within(pkg, tree string) bool {
	if pkg == "internal/tpm/device" || strings.HasPrefix(pkg, "internal/tpm/device/") {
		return tree == "internal/tpm/device"
	}
	return !forTests(pkg) && (pkg == tree || strings.HasPrefix(pkg, tree+"/"))
}

// forTests reports whether pkg exists for tests: its last element is a name that ends in "test".
func forTests(pkg string) bool { return strings.HasSuffix(pkg, "test") }

// among reports whether pkg lies in one of the named trees of internal/.
func among(pkg string, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return within(pkg, "internal/"+name) })
}

func TestWayThroughTheHouse(t *testing.T) {
	station := func(pkg string) int {
		for i, s := range way {
			if among(pkg, s.packages) {
				return i
			}
		}
		return -1
	}
	g := theHouse(t).graph()
	for pkg := range g {
		here := station(pkg)
		if here < 0 {
			continue
		}
		for dep, chain := range closure(g, pkg) {
			if there := station(dep); there > here {
				t.Errorf("%s (%s) needs %s (%s), which lies behind it: %s", pkg, way[here].station, dep, way[there].station, chain)
			}
		}
	}
}

func TestKeptApart(t *testing.T) {
	g := theHouse(t).graph()
	for _, rule := range apart {
		for pkg := range g {
			if !within(pkg, rule.pkg) {
				continue
			}
			for dep, chain := range closure(g, pkg) {
				if slices.ContainsFunc(rule.never, func(never string) bool { return within(dep, never) }) {
					t.Errorf("%s must not need %s (%s): %s", pkg, dep, rule.reason, chain)
				}
			}
		}
	}
}

func TestPurePackages(t *testing.T) {
	h := theHouse(t)
	for _, f := range h.goes {
		if f.test || !among(f.pkg, pure) {
			continue
		}
		for _, imported := range f.imports {
			rel, ours := strings.CutPrefix(imported, module+"/")
			if slices.Contains(impure, imported) || ours && !among(rel, pure) && !among(rel, values) {
				t.Errorf("%s: imports %s, want a pure package: bytes in, values out", f.path, imported)
			}
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(clocks, sel.Sel.Name) {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: time.%s, want the time as a parameter", h.fset.Position(n.Pos()), sel.Sel.Name)
				}
			}
			return true
		})
	}
}

// TestTestHelpersStayInTests: packages for tests, and the testing package, do not get into programs.
func TestTestHelpersStayInTests(t *testing.T) {
	for _, f := range theHouse(t).goes {
		if f.test || forTests(f.pkg) || strings.HasPrefix(f.pkg, "test/") {
			continue
		}
		for _, imported := range f.imports {
			if imported == "testing" || strings.HasPrefix(imported, module+"/") && forTests(imported) {
				t.Errorf("%s: imports %s, which is for tests", f.path, imported)
			}
			if strings.HasPrefix(imported, module+"/test/") && showsBoots[f.pkg] == "" {
				t.Errorf("%s: imports %s: only packages of showsBoots may", f.path, imported)
			}
		}
	}
}

func TestDependencies(t *testing.T) {
	h := theHouse(t)
	allowed := func(imported string) bool {
		for dep := range dependencies {
			if imported == dep || strings.HasPrefix(imported, dep+"/") {
				return true
			}
		}
		return false
	}
	for _, f := range h.goes {
		for _, imported := range f.imports {
			first, _, _ := strings.Cut(imported, "/")
			if strings.Contains(first, ".") && imported != module && !strings.HasPrefix(imported, module+"/") && !allowed(imported) {
				t.Errorf("%s: imports %s, which is not on the list: add it to dependencies with the reason, or do without", f.path, imported)
			}
		}
	}
	for i, line := range strings.Split(h.texts["go.mod"], "\n") {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) == 2 && strings.Contains(fields[0], ".") && strings.HasPrefix(fields[1], "v") && !allowed(fields[0]) {
			t.Errorf("go.mod:%s: %s is a direct dependency that is not on the list", strconv.Itoa(i+1), fields[0])
		}
		if strings.HasPrefix(line, "replace") {
			t.Errorf("go.mod:%d: replace: only versions that everybody can fetch", i+1)
		}
	}
}
