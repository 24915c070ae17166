package verifier

import "testing"

// TestKeepIsBoundedInBytes: neither many entries nor large ones make it grow beyond two generations.
func TestKeepIsBoundedInBytes(t *testing.T) {
	k := newKeep[int, int](10, 1000)
	for i := range 1000 {
		k.put(i, i, 100)
		k.put(i, i, 100) // the same again takes no more room
		k.get(i - 3)
		if n := len(k.young) + len(k.old); n > 20 || k.used > 1000 {
			t.Fatalf("after %d: got %d entries, %d bytes of the younger generation; want at most 20, 1000", i, n, k.used)
		}
	}
	k.put(-1, -1, 500)
	if _, ok := k.get(-1); ok {
		t.Error("get(an entry of half the room): got it, want it not kept")
	}
	if v, ok := k.get(999); !ok || v != 999 {
		t.Errorf("get(999): got %d, %v; want 999", v, ok)
	}
}
