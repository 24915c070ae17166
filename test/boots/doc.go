// Package boots holds the golden corpus: Evidence of real measured boots, one folder each, with the verdict that each must get on
// every level beside it.
//
// The references are small extracts of the Debian packages that were booted, plus what was captured from the boot `good`: its firmware (level 1)
// and its Secure Boot keys (level 2). The script appraise judges any folder of the same layout.
package boots
