// Package runtimeconf writes and checks the configuration by which container runtimes decrypt images: containerd 1.6, 1.7 and 2.x (stream
// processors and, from 2.1 on, local image pulls) and CRI-O (ocicrypt's key provider).
//
// What it checks is what the runtime says that it uses (containerd config dump), or, from within a container that cannot ask so, the files that the
// runtime would read, and whether it was started after them. Each problem is a sentence that says what to do.
package runtimeconf
