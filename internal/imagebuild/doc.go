// Package imagebuild makes the container images of Touchstone: from source to OCI layout, docker archives and registry, without a container
// engine. The same source and Go release give the same bytes, on any machine.
//
// An image holds static programs, a user without rights, and nothing else: no shell, no package manager, no base image that somebody
// must keep current. It follows the OCI Image Specification 1.1.
package imagebuild
