// Package images decides whether a container image is what a trust class demands: signed by one of its keys, every layer of it encrypted. It asks the
// image's registry, and what it cannot find out is refused.
//
// Which registry is asked, a pod says, so it is a stranger's word: only hosts that the controller's options or the class name are asked, by
// HTTPS unless an option says otherwise; a host that nobody named, as one that a registry redirects to, must have a public address. What registries
// answer is bounded in size, number and time, and never repeated in messages.
//
// Answers hold for a digest, so they are kept: good ones for long, bad ones for a moment.
package images
