package source

import (
	"time"

	"touchstone.dev/touchstone/internal/audit/record"
)

// Item is what a Reader gives next: exactly one of Event, Gap and Status is there.
type Item struct {
	Event  *record.Event // the receiver's to keep
	Gap    *Gap
	Status *Status
	At     time.Time // when it was received, by this machine's clock
	// Own tells that the event is the kernel's record of this Reader itself beginning to listen.
	Own bool

	done mark
}

// Why events are missing, in Gap.Why.
const (
	WhyKernel  = "kernel"  // the kernel's counter of lost records grew
	WhyOverrun = "overrun" // this reader did not keep up, and there is no log to fill in from
	WhySerial  = "serial"  // numbers of events are missing
	WhyRotated = "rotated" // auditd removed a log before it was read, or somebody cut it
	WhyOther   = "other"   // lines that are no records
)

// Gap says that events are missing.
type Gap struct {
	Why     string
	Events  uint64 // how many; 0: not known
	AtLeast bool   // there may be more
	Records bool   // Events counts records, of which an event has several
	// First and Last are the first and last missing serial numbers; 0: not known.
	First, Last uint64

	Counter uint64 // WhyKernel: the kernel's counter
	Detail  string // for people
}

// Alarm is something about audit itself that somebody should know at once.
type Alarm string

// Alarms.
const (
	AlarmDisabled Alarm = "audit-disabled" // the kernel's audit was switched off
	AlarmEnabled  Alarm = "audit-enabled"  // and on again
	AlarmGone     Alarm = "auditd-gone"    // no auditd is connected to the kernel
	AlarmChanged  Alarm = "auditd-changed" // another process is the kernel's audit daemon
	AlarmRules    Alarm = "rules-changed"  // the loaded rules are others than before
	AlarmLost     Alarm = "records-lost"   // the kernel lost records
	AlarmNoStatus Alarm = "no-status"      // the kernel does not answer: see Err
	AlarmNoLog    Alarm = "no-log"         // auditd's log cannot be read: see Err
	AlarmNoLive   Alarm = "no-multicast"   // the multicast group cannot be joined: see Err
)

// Status is what the kernel says of audit. The first one comes when a Reader begins, others when something changed, and regularly. With
// AlarmNoStatus the numbers are not known; with other alarms they are, unless that alarm came, too.
type Status struct {
	Enabled     uint32 // 0 off, 1 on, 2 on until the next boot
	PID         uint32 // of auditd, 0: none
	Lost        uint32 // records that the kernel lost since boot
	Backlog     uint32 // records that wait for auditd
	Limit       uint32 // of the backlog
	WaitTime    uint32 // how long a process waits when the backlog is full, in ticks of the kernel
	Failure     uint32 // 0 silent, 1 printk, 2 panic
	RateLimit   uint32
	WaitActual  uint32 // how long processes waited since boot, in ticks
	Rules       int    // number of loaded rules
	RulesDigest []byte // SHA-256 over the loaded rules in order, as the kernel lists them
	Alarms      []Alarm
	Err         string
	Overruns    uint64 // of the multicast socket, since the Reader began
}
