package kmod

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errLZ4 = errors.New("lz4: damaged block")

// unpackLZ4 unpacks the legacy LZ4 frame that kernels use (lz4_Frame_format.md, "Legacy frame"): a magic number, then blocks with their
// compressed size before them, each unpacking to 8 MiB or, the last one, less. The unpacked size may follow (4 bytes).
func unpackLZ4(b []byte, limit int64) ([]byte, error) {
	const blockSize = 8 << 20
	var out []byte
	for b = b[4:]; len(b) > 4; {
		size := binary.LittleEndian.Uint32(b)
		if uint64(size) > uint64(len(b)-4) {
			return nil, fmt.Errorf("lz4: block of %d bytes, %d are left", size, len(b)-4)
		}
		start := len(out)
		var err error
		if out, err = appendLZ4(out, b[4:4+size], min(int64(start)+blockSize, limit)); err != nil {
			return nil, err
		}
		b = b[4+size:]
		if len(out)-start < blockSize {
			break
		}
	}
	if len(out) == 0 {
		return nil, errors.New("lz4: nothing in it")
	}
	return out, nil
}

// appendLZ4 unpacks one block (lz4_Block_format.md) to the end of out, which may grow to limit bytes. Matches reach back to the start
// of the block at most.
func appendLZ4(out, b []byte, limit int64) ([]byte, error) {
	start := len(out)
	length := func(n int) (int, bool) {
		for more := n == 15; more; {
			if len(b) == 0 || n > 16<<20 {
				return 0, false
			}
			n += int(b[0])
			more = b[0] == 255
			b = b[1:]
		}
		return n, true
	}
	for len(b) > 0 {
		token := b[0]
		b = b[1:]
		n, ok := length(int(token >> 4))
		if !ok || n > len(b) || int64(len(out)+n) > limit {
			return nil, errLZ4
		}
		out, b = append(out, b[:n]...), b[n:]
		if len(b) == 0 {
			return out, nil // the last sequence has literals only
		}
		if len(b) < 2 {
			return nil, errLZ4
		}
		back := int(binary.LittleEndian.Uint16(b))
		b = b[2:]
		n, ok = length(int(token & 15))
		n += 4
		if !ok || back == 0 || back > len(out)-start || int64(len(out)+n) > limit {
			return nil, errLZ4
		}
		for range n { // byte by byte: a match may overlap what it writes
			out = append(out, out[len(out)-back])
		}
	}
	return out, nil
}
