// Package fleet simulates many workers, to load an AIAS with and to measure it.
//
// Each node has keys of its own (package softtpm), enrols as a real one, and answers every challenge with a quote over the logs of a boot that a
// real machine measured (test/boots/corpus/good). A node costs the generator little, so that thousands of them fit beside AIAS on two cores:
// keys lie in memory, logs are shared, and each connection speaks just the HTTP/1.1 that is needed here.
//
// [Run] starts `aias serve` as a process of its own with a temporary data folder, so that its CPU and memory are read apart from the
// generator's (proc(5)), or takes one that runs already. Only loopback addresses are taken: a load generator is no tool to aim at others.
package fleet
