package ima

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // template hashes are SHA-1
	"fmt"
	"slices"

	"touchstone.dev/touchstone/internal/tpm"
)

// Result is what a list says as far as the quote covers it.
type Result struct {
	Matched   int   // new entries up to the quoted value; see Each
	Unmatched int   // entries behind the quoted value: made after the quote, proven by nothing
	State     State // the point up to which the list is verified
	// Aggregate is the first entry of the list when it is among the new ones and is a boot_aggregate; else nil. See also State.Aggregate.
	Aggregate *Entry

	list []byte // the new entries
	from State
}

// Each calls fn with all new entries up to the quoted value, in order, some at a time so that what they ask for can be looked up together.
// The entries are used again for the next call; what they point to is not. It reads the list that was given to Verify, which must not have
// been changed since.
func (r *Result) Each(fn func([]Entry)) {
	l := NewList(r.list, r.from)
	some := make([]Entry, min(atOnce, r.Matched))
	for n := l.read(some); n > 0; n = l.read(some) { // without error: Verify read the same bytes
		fn(some[:n])
	}
}

// atOnce is how many entries Each hands over: what stays in the processor's cache.
const atOnce = 32

// Verify replays list, which starts where from ends (the zero State: the whole list), and finds the entry after which
// PCR 10 has the quoted value in every bank of quoted at once. Every template hash up to there is checked. The Result holds
// the entries up to that point: none when the quoted value is that of from itself. It points into list, which must not be changed.
//
// How the kernel extends banks longer than SHA-1 is found out once and kept in the State (see [Modes]).
//
// Errors: ErrMalformed, ErrTemplateHash, ErrPCR, ErrState (send the whole list), ErrNoPrefix.
func Verify(list []byte, from State, quoted map[tpm.Alg][]byte) (*Result, error) {
	if err := from.check(); err != nil {
		return nil, err
	}
	usual, all, err := start(from, quoted)
	if err != nil {
		return nil, err
	}
	p := &pass{list: NewList(list, from), banks: usual}
	err = p.run()
	if err == nil && !p.matched && all != nil {
		p = &pass{list: NewList(list, from), banks: all, checked: true}
		err = p.run()
	}
	if err != nil {
		return nil, err
	}
	if !p.matched {
		return nil, p.explain()
	}
	return p.result(list, from)
}

// start prepares the banks: usual replays as today's kernels do, all in every mode that the state leaves open (nil when
// that is the same).
func start(from State, quoted map[tpm.Alg][]byte) (usual, all []*bank, err error) {
	if len(quoted) == 0 {
		return nil, nil, fmt.Errorf("%w: no bank with PCR 10 is quoted", ErrNoPrefix)
	}
	more := false
	for _, alg := range tpm.HashAlgs {
		want, ok := quoted[alg]
		if !ok {
			continue
		}
		if len(want) != alg.Size() {
			return nil, nil, fmt.Errorf("quoted PCR 10 of bank %v has %d bytes: want %d", alg, len(want), alg.Size())
		}
		first, every := ModeHash, allModes
		if alg == tpm.AlgSHA1 {
			every = ModeHash // padding a SHA-1 to 20 bytes changes nothing
		}
		if from.Entries > 0 {
			i := slices.IndexFunc(from.Banks, func(b Bank) bool { return b.Alg == alg })
			if i < 0 {
				return nil, nil, fmt.Errorf("%w: bank %v was not quoted before; send the whole list", ErrState, alg)
			}
			every = from.Banks[i].Modes
			first = every
		}
		more = more || first != every
		usual = append(usual, newBank(alg, want, from.PCR(alg), first))
		all = append(all, newBank(alg, want, from.PCR(alg), every))
	}
	if len(usual) != len(quoted) {
		return nil, nil, fmt.Errorf("a bank is quoted whose algorithm cannot be replayed: want %v", tpm.HashAlgs)
	}
	if !more {
		all = nil
	}
	return usual, all, nil
}

// pass is one replay of the list.
type pass struct {
	list    *List
	banks   []*bank
	checked bool // template hashes were checked by an earlier pass
	matched bool
	count   int   // entries replayed
	end     int   // bytes replayed
	alone   *bank // a bank that had its quoted value at an entry where another had not
}

// run replays until every bank has its quoted value. A value cannot come again later: that would be a cycle in a chain of hashes.
func (p *pass) run() error {
	var old [276]byte
	for !p.match() && p.list.at < len(p.list.b) {
		if err := p.list.record(); err != nil {
			return err
		}
		r := &p.list.rec
		if r.pcr != PCR {
			return fmt.Errorf("%w: entry %d extends PCR %d", ErrPCR, r.index, r.pcr)
		}
		hashed := p.list.b[r.data:r.end]
		if r.tmpl.old {
			hashed = oldHashed(hashed, &old)
		}
		hash := (*[20]byte)(p.list.b[r.start+4:])
		violation := *hash == [20]byte{}
		if !p.checked && !violation && sha1.Sum(hashed) != *hash { //nolint:gosec // see the import
			return fmt.Errorf("%w: entry %d at byte %d was altered", ErrTemplateHash, r.index, p.list.from.Offset+uint64(r.start))
		}
		for _, b := range p.banks {
			b.extend(hashed, hash, violation)
		}
		p.count, p.end = p.list.count, r.end
	}
	return nil
}

// match sets matched when every bank has its quoted value.
func (p *pass) match() bool {
	n := 0
	for _, b := range p.banks {
		if b.matches() != 0 {
			n++
			p.alone = b
		}
	}
	p.matched = n == len(p.banks)
	return p.matched
}

// explain says what can be known of a list that does not reach the quoted value: not which entry is wrong, because a hash
// chain does not tell.
func (p *pass) explain() error {
	if p.alone != nil {
		return fmt.Errorf("%w: bank %v reaches its value, another bank does not at the same entry", ErrNoPrefix, p.alone.alg)
	}
	from := p.list.from
	if from.Entries > 0 {
		return fmt.Errorf("%w: %d new entries after the %d verified before; the list was cut, altered, or belongs to another boot",
			ErrNoPrefix, p.count, from.Entries)
	}
	return fmt.Errorf("%w: %d entries replayed; the list was cut short, an entry was removed or altered, or PCR 10 was extended by something else",
		ErrNoPrefix, p.count)
}

// result counts the entries that the quote does not cover.
func (p *pass) result(list []byte, from State) (*Result, error) {
	for p.list.at < len(list) {
		if err := p.list.record(); err != nil {
			return nil, err
		}
	}
	res := &Result{Matched: p.count, Unmatched: p.list.count - p.count, State: from.Clone(), list: list[:p.end], from: from.Clone()}
	if p.count > 0 {
		res.advance(p)
	}
	return res, nil
}

// advance moves the state behind the matched entries.
func (r *Result) advance(p *pass) {
	s := &r.State
	s.Entries += uint64(p.count)
	s.Offset += uint64(p.end)
	s.Order = p.list.order
	s.Banks = nil
	for _, b := range p.banks {
		s.Banks = append(s.Banks, Bank{Alg: b.alg, Modes: b.matches(), Value: b.want})
	}
	if r.from.Entries > 0 {
		return
	}
	first := NewList(r.list, r.from)
	if first.Next() && first.entry.isAggregate() {
		r.Aggregate = first.Entry()
		s.AggregateAlg, s.Aggregate = r.Aggregate.Alg, bytes.Clone(r.Aggregate.Digest)
		s.Template = first.first
	}
}
