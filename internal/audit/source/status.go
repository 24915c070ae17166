package source

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// askTimeout bounds a question to the kernel, which answers in microseconds.
const askTimeout = 5 * time.Second

// Ask returns what the kernel says of audit now, the digest of the loaded rules included.
func Ask() (Status, error) {
	s, err := askStatus()
	if err != nil {
		return s, err
	}
	return s, s.askRules()
}

// askStatus is AUDIT_GET: struct audit_status of linux/audit.h.
func askStatus() (Status, error) {
	got, err := ask(auditGet, askTimeout)
	if err != nil {
		return Status{}, err
	}
	if len(got) != 1 || len(got[0].data) < 40 {
		return Status{}, errors.New("the kernel's audit answers with a short status")
	}
	word := func(i int) uint32 {
		if len(got[0].data) < 4*i+4 {
			return 0 // older kernels know fewer
		}
		return binary.NativeEndian.Uint32(got[0].data[4*i:])
	}
	return Status{Enabled: word(1), Failure: word(2), PID: word(3), RateLimit: word(4), Limit: word(5), Lost: word(6), Backlog: word(7),
		WaitTime: word(9), WaitActual: word(10)}, nil
}

// askRules counts and digests the rules in the order in which the kernel lists them, which is that in which it applies them.
func (s *Status) askRules() error {
	rules, err := ask(auditListRules, askTimeout)
	if err != nil {
		return fmt.Errorf("listing audit rules: %w", err)
	}
	h := sha256.New()
	for _, r := range rules {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(r.data)))
		h.Write(size[:])
		h.Write(r.data)
	}
	s.Rules, s.RulesDigest = len(rules), h.Sum(nil)
	return nil
}

// compare returns what is alarming in now, after before.
func compare(before, now *Status) []Alarm {
	var alarms []Alarm
	alarm := func(yes bool, a Alarm) {
		if yes {
			alarms = append(alarms, a)
		}
	}
	if before == nil {
		alarm(now.Enabled == 0, AlarmDisabled)
		alarm(now.PID == 0, AlarmGone)
		return alarms
	}
	alarm(before.Enabled != 0 && now.Enabled == 0, AlarmDisabled)
	alarm(before.Enabled == 0 && now.Enabled != 0, AlarmEnabled)
	alarm(before.PID != 0 && now.PID == 0, AlarmGone)
	alarm(before.PID != now.PID && now.PID != 0, AlarmChanged)
	alarm(string(before.RulesDigest) != string(now.RulesDigest), AlarmRules)
	alarm(now.Lost != before.Lost, AlarmLost)
	return alarms
}
