// Package oval evaluates feeds of vulnerabilities for Debian packages: OVAL 5 definitions as Debian publishes them (oval-definitions-bookworm.xml), without
// oscap. Known are tests of packages (dpkginfo_test, with evr or version, or of being there), of text files (textfilecontent54_test, one object by path and
// file name, one subexpression) and of the kernel (uname_test, which does not apply to files at rest and counts for nothing, as in oscap). A definition with
// any other test is counted as one that cannot be evaluated; a Report with such ones is never good.
//
// A feed is read as a stream and bounded; what is kept of it is small. Versions are ordered as dpkg orders them (deb-version(7)).
package oval
