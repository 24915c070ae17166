// Package reference holds Reference Values: what a genuine worker may show, and where each value comes from.
//
// Importers read a Source from a Debian package, a captured Evidence, a file list, a UEFI revocation list, an SBAT level or CA
// certificates, and keep it as one file in the reference folder. Load compiles a folder into one immutable Set that every node
// shares; a lookup costs the same whatever the size of the Set.
package reference
