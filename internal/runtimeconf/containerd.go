package runtimeconf

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"touchstone.dev/touchstone/internal/imagekey"
)

// Where containerd looks by default, and where its additional configuration goes.
const (
	KeyProviderFile = "/etc/containerd/ocicrypt/ocicrypt_keyprovider.conf"
	ContainerdFile  = "/etc/containerd/config.toml"
	DropIn          = "/etc/containerd/conf.d/touchstone-images.toml"
	envConfig       = "OCICRYPT_KEYPROVIDER_CONFIG"
)

// Version is that of a runtime.
type Version struct{ Major, Minor int }

var versionText = regexp.MustCompile(`\bv?(\d{1,4})\.(\d{1,4})\.\d`)

// ParseVersion finds the version in what `containerd --version` prints.
func ParseVersion(text string) (Version, error) {
	m := versionText.FindStringSubmatch(text)
	if m == nil {
		return Version{}, fmt.Errorf("no version in %.100q", text)
	}
	major, _ := strconv.Atoi(m[1]) // at most four digits
	minor, _ := strconv.Atoi(m[2])
	return Version{major, minor}, nil
}

// atLeast reports whether v is that version or a later one.
func (v Version) atLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// suffixes are the ends of the media types of layers that can be encrypted.
var suffixes = []string{"", "+gzip", "+zstd"}

// processors are the stream processors. containerd tells only these two, by name, which layer they have; so the second takes both compressed kinds. What it
// returns is called gzip for both, and containerd finds out by itself how it is compressed.
var processors = []struct {
	name, returns string
	accepts       []string
}{{"tar", "", []string{""}}, {"tar.gzip", "+gzip", []string{"+gzip", "+zstd"}}}

const (
	layerType     = "application/vnd.oci.image.layer.v1.tar"
	encryptedEnd  = "+encrypted"
	processorName = "io.containerd.ocicrypt.decoder.v1."
)

// Containerd is the configuration to import into that of containerd: a stream processor for each kind of layer and, where it is needed, local image pulls.
func Containerd(v Version, decoder, keyProviderFile string) []byte {
	var b strings.Builder
	version := 2
	if v.Major >= 2 {
		version = 3
	}
	fmt.Fprintf(&b, "# Written by `trust-agent image-provider install`: encrypted images.\nversion = %d\n", version)
	for _, p := range processors {
		var accepts []string
		for _, suffix := range p.accepts {
			accepts = append(accepts, strconv.Quote(layerType+suffix+encryptedEnd))
		}
		fmt.Fprintf(&b, "\n[stream_processors.%q]\n  accepts = [%s]\n  returns = %q\n  path = %q\n  args = []\n  env = [%q]\n",
			processorName+p.name, strings.Join(accepts, ", "), layerType+p.returns, decoder, envConfig+"="+keyProviderFile)
	}
	if v.atLeast(2, 1) {
		b.WriteString("\n# The transfer service, by which containerd pulls images since 2.1, does not decrypt.\n[plugins.'io.containerd.cri.v1.images']\n  use_local_image_pull = true\n")
	}
	return []byte(b.String())
}

// KeyProvider is the configuration of ocicrypt that names the trust agent's socket.
func KeyProvider(socket string) []byte {
	type provider struct {
		GRPC string `json:"grpc"`
	}
	p := provider{"unix://" + socket}
	b, err := json.MarshalIndent(map[string]map[string]provider{"key-providers": {imagekey.Provider: p, imagekey.CoCoProvider: p}}, "", "  ")
	if err != nil {
		return nil // strings only
	}
	return append(b, '\n')
}

// config is what matters of the configuration of containerd.
type config struct {
	Version    int      `toml:"version"`
	Imports    []string `toml:"imports"`
	Processors map[string]struct {
		Accepts []string `toml:"accepts"`
		Returns string   `toml:"returns"`
		Path    string   `toml:"path"`
		Env     []string `toml:"env"`
	} `toml:"stream_processors"`
	Plugins struct {
		Old plugin `toml:"io.containerd.grpc.v1.cri"`
		New plugin `toml:"io.containerd.cri.v1.images"`
	} `toml:"plugins"`
}

type plugin struct {
	LocalPull  bool `toml:"use_local_image_pull"`
	Decryption struct {
		KeyModel string `toml:"key_model"`
	} `toml:"image_decryption"`
	Registry struct {
		Mirrors map[string]any `toml:"mirrors"`
		Configs map[string]any `toml:"configs"`
		Auths   map[string]any `toml:"auths"`
	} `toml:"registry"`
}

// Host is what a check looks at.
type Host struct {
	// Look finds a program as the runtime would ("ctd-decoder", or a path); Read reads a file.
	Look func(program string) error
	Read func(file string) ([]byte, error)
	// Socket is where the trust agent serves.
	Socket string
}

// CheckContainerd says what keeps containerd from decrypting images; dump is what `containerd config dump` prints.
func CheckContainerd(v Version, dump []byte, h Host) ([]string, error) {
	var c config
	if err := toml.Unmarshal(dump, &c); err != nil {
		return nil, fmt.Errorf("read the configuration of containerd: %w", err)
	}
	return c.check(v, h), nil
}

// check says what keeps a containerd of a version with this configuration from decrypting images.
func (c *config) check(v Version, h Host) []string {
	var problems []string
	add := func(format string, a ...any) { problems = append(problems, fmt.Sprintf(format, a...)) }
	if !v.atLeast(1, 5) {
		add("containerd %d.%d does not decrypt in CRI: use 1.6 or later", v.Major, v.Minor)
	}
	for _, suffix := range suffixes {
		for _, problem := range c.processor(suffix, h) {
			if !slices.Contains(problems, problem) {
				problems = append(problems, problem)
			}
		}
	}
	p := c.Plugins.Old
	if v.Major >= 2 {
		p = c.Plugins.New
	}
	if p.Decryption.KeyModel != "node" {
		add("image_decryption.key_model is %q, want \"node\": with any other no layer is decrypted", p.Decryption.KeyModel)
	}
	if r := p.Registry; v.atLeast(2, 1) && !p.LocalPull && len(r.Mirrors)+len(r.Configs)+len(r.Auths) == 0 {
		add("containerd %d.%d pulls images by the transfer service, which decrypts nothing: set use_local_image_pull = true in [plugins.'io.containerd.cri.v1.images']", v.Major, v.Minor)
	}
	return problems
}

// processor checks the stream processor for one kind of layer.
func (c *config) processor(suffix string, h Host) []string {
	kind := layerType + suffix + encryptedEnd
	for name, p := range c.Processors {
		if !slices.Contains(p.Accepts, kind) {
			continue
		}
		if name != processorName+"tar" && name != processorName+"tar.gzip" {
			return []string{fmt.Sprintf("stream processor %s accepts %s, but containerd tells only %star and %star.gzip which layer they have", name, kind, processorName, processorName)}
		}
		var problems []string
		if compressed := suffix != ""; strings.HasPrefix(p.Returns, layerType+"+") != compressed || !strings.HasPrefix(p.Returns, layerType) {
			problems = append(problems, fmt.Sprintf("stream processor %s returns %q for %s", name, p.Returns, kind))
		}
		if err := h.Look(p.Path); err != nil {
			problems = append(problems, fmt.Sprintf("stream processor %s: its program %s is not there: %v", name, p.Path, err))
		}
		return append(problems, keyProvider(name, p.Env, h)...)
	}
	return []string{fmt.Sprintf("no stream processor accepts %s: such layers cannot be pulled", kind)}
}

// keyProvider checks that a stream processor finds the socket.
func keyProvider(name string, env []string, h Host) []string {
	for _, e := range env {
		file, ok := strings.CutPrefix(e, envConfig+"=")
		if !ok {
			continue
		}
		b, err := h.Read(file)
		if err != nil {
			return []string{fmt.Sprintf("stream processor %s: %v", name, err)}
		}
		return checkKeyProvider(file, b, h.Socket)
	}
	return []string{fmt.Sprintf("stream processor %s does not set %s", name, envConfig)}
}

// checkKeyProvider checks a configuration of ocicrypt.
func checkKeyProvider(file string, b []byte, socket string) []string {
	var c struct {
		Providers map[string]struct {
			GRPC string `json:"grpc"`
		} `json:"key-providers"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return []string{fmt.Sprintf("%s: %v", file, err)}
	}
	if got, want := c.Providers[imagekey.Provider].GRPC, "unix://"+socket; got != want {
		return []string{fmt.Sprintf("%s: key provider %s is at %q, the trust agent serves at %q", file, imagekey.Provider, got, want)}
	}
	return nil
}
