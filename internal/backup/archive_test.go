package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// members reads a backup into a map.
func members(data []byte, ids ...age.Identity) (map[string]string, error) {
	out := map[string]string{}
	_, err := Read(bytes.NewReader(data), func(name string, size int64, r io.Reader) error {
		b, err := io.ReadAll(r)
		if err == nil && int64(len(b)) != size {
			err = errors.New("size")
		}
		out[name] = string(b)
		return err
	}, ids...)
	return out, err
}

func write(t testing.TB, to age.Recipient, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, Head{Created: time.Unix(1, 0)}, to)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(files); i += 2 {
		if err := w.Add(files[i], int64(len(files[i+1])), strings.NewReader(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriteAndRead(t *testing.T) {
	id := identity(t)
	big := strings.Repeat("database", 50000)
	data := write(t, id.Recipient(), KeyName, "key", Database, big, Checkpoint, "note", Entries+"0000000000", "entries", References+"a/b", "ref")
	got, err := members(data, id)
	if err != nil || len(got) != 5 || got[Database] != big || got[References+"a/b"] != "ref" {
		t.Errorf("Read(): got %d members, %v", len(got), err)
	}
	if _, err := members(data, identity(t)); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("Read() by a stranger: got %v, want another error than damage", err)
	}
	for _, n := range []int{0, 1, 100, len(data) / 2, len(data) - 17, len(data) - 1} {
		if _, err := members(data[:n], id); !errors.Is(err, ErrDamaged) {
			t.Errorf("Read() of %d of %d bytes: got %v, want %v", n, len(data), err, ErrDamaged)
		}
	}
	for at := 200; at < len(data); at += 997 {
		bad := bytes.Clone(data)
		bad[at] ^= 4
		if _, err := members(bad, id); !errors.Is(err, ErrDamaged) {
			t.Errorf("Read() with byte %d changed: got %v, want %v", at, err, ErrDamaged)
		}
	}
	if _, err := NewWriter(io.Discard, Head{}); err == nil {
		t.Error("NewWriter() without a recipient: got no error")
	}
}

func TestAddRefuses(t *testing.T) {
	w, err := NewWriter(io.Discard, Head{}, identity(t).Recipient())
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{
		"other": 1, References + "../x": 1, References + "/x": 1, References + "a/../b": 1, References: 0, Entries + "1": 1, KeyName: maxSmall + 1,
		References + strings.Repeat("x", maxPath+1): 1,
	} {
		if err := w.Add(name, size, strings.NewReader("x")); err == nil {
			t.Errorf("Add(%.40q, %d): got no error", name, size)
		}
	}
	if err := w.Add(KeyName, 5, strings.NewReader("x")); err == nil {
		t.Error("Add() of less than was said: got no error")
	}
}

// encrypt makes a backup of a hostile archive: somebody who knows the public key can.
func encrypt(t testing.TB, to age.Recipient, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func archive(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		text := h.Linkname
		h.Size = int64(len(text))
		if h.Typeflag != tar.TypeSymlink {
			h.Linkname = ""
		} else {
			h.Size = 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// file is a member; its text travels in Linkname.
func file(name, text string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Linkname: text, Mode: 0o600}
}

func TestHostileArchive(t *testing.T) {
	id := identity(t)
	head, tail := file(headName, `{"format":1}`), func(n string) *tar.Header { return file(endName, `{"members":`+n+`}`) }
	for name, c := range map[string][]*tar.Header{
		"nothing":         {},
		"no head":         {file(KeyName, "x"), tail("1")},
		"two heads":       {head, file(headName, `{"format":1}`), tail("2")},
		"no end":          {head, file(KeyName, "x")},
		"fewer":           {head, tail("2")},
		"after the end":   {head, tail("1"), file(KeyName, "x")},
		"up":              {head, file(References+"../../etc/passwd", "x"), tail("2")},
		"absolute":        {head, file("/etc/passwd", "x"), tail("2")},
		"symlink":         {head, {Name: References + "a", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, tail("2")},
		"folder":          {head, {Name: References + "a", Typeflag: tar.TypeDir}, tail("2")},
		"another format":  {file(headName, `{"format":3}`), tail("1")},
		"no format":       {file(headName, `{"format":0}`), tail("1")},
		"chain above":     {head, file(Audit+"../x", "x"), tail("2")},
		"chain below":     {head, file(Audit+"n-a/b", "x"), tail("2")},
		"no JSON":         {file(headName, `{`), tail("1")},
		"large key":       {head, file(KeyName, strings.Repeat("x", maxSmall+1)), tail("2")},
		"backslash":       {head, file(References+`a\b`, "x"), tail("2")},
		"bundle's number": {head, file(Entries+"00000000001", "x"), tail("2")},
	} {
		for _, h := range c { // shared headers are used up
			if h == head {
				h.Linkname = `{"format":1}`
			}
		}
		if got, err := members(encrypt(t, id.Recipient(), archive(t, c...)), id); err == nil {
			t.Errorf("%s: Read(): got %v", name, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	id := identity(f)
	f.Add(archive(f, file(headName, `{"format":1}`), file(KeyName, "x"), file(endName, `{"members":2}`)))
	f.Add(archive(f, file(headName, `{"format":1}`), file(References+"a", "x"), file(endName, `{"members":2}`)))
	f.Fuzz(func(t *testing.T, plain []byte) {
		got, err := members(encrypt(t, id.Recipient(), plain), id)
		if err != nil {
			return
		}
		for name := range got {
			if _, err := limitOf(name); err != nil || strings.Contains(name, "..") && !strings.HasPrefix(name, References) {
				t.Errorf("Read(): took %q", name)
			}
		}
	})
}

// FuzzEncrypted is the outside, before anything is decrypted.
func FuzzEncrypted(f *testing.F) {
	id := identity(f)
	f.Add(write(f, id.Recipient(), KeyName, "key"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = members(data, id) })
}
