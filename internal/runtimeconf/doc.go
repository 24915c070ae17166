// Package runtimeconf writes and checks the configuration by which container runtimes decrypt images: containerd 1.6, 1.7 and 2.x (stream
// processors and, from 2.1 on, local image pulls) and CRI-O (ocicrypt's key provider).
//
// What it checks is what the runtime says that it uses (containerd config dump), not a file. Each problem is a sentence that says what to do.
// It does not tell whether a runtime was restarted since its configuration changed.
package runtimeconf
