package boots

import "embed"

// Files holds what programs show without the repository at hand (the demo, the simulated fleet): what the machines of corpus/good and
// corpus/cmdline wrote while they booted, and the references by which those boots are good. Paths are those of this folder. The
// software TPMs' CA is not among the references: a program has its own.
//
//go:embed corpus/good/eventlog.bin corpus/good/ima.bin corpus/good/efivars
//go:embed corpus/good/lockdown corpus/good/tainted corpus/good/sig_enforce corpus/good/proc_*
//go:embed corpus/cmdline/eventlog.bin corpus/cmdline/ima.bin corpus/cmdline/efivars
//go:embed corpus/cmdline/lockdown corpus/cmdline/tainted corpus/cmdline/sig_enforce corpus/cmdline/proc_*
//go:embed references/capture-*.json references/files-files.sha256-*.json references/package-*.json
var Files embed.FS
