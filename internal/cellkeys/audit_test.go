package cellkeys

import (
	"bytes"
	"strings"
	"testing"
)

// A keys file of a release that kept no audit log goes on working, with the same key at every start; and one of this
// release, as long as nobody has rotated, says nothing that such a release would refuse.
func TestAuditKeysOfAFileWithoutAny(t *testing.T) {
	t.Parallel()
	k := Generate()
	b, err := k.Marshal()
	if err != nil || bytes.Contains(b, []byte("audit")) {
		t.Fatalf("a fresh file names the audit log: %v", err)
	}
	again, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	one, err1 := k.AuditSeeds()
	two, err2 := again.AuditSeeds()
	if err1 != nil || err2 != nil || len(one) != 1 || len(two) != 1 || !bytes.Equal(one[0], two[0]) || len(one[0]) != keySize {
		t.Fatal("the same file has not the same key")
	}
	if other, _ := Generate().AuditSeeds(); bytes.Equal(other[0], one[0]) || bytes.Equal(one[0], k.NameIndex) {
		t.Fatal("the key is not the file's own")
	}
}

func TestRotatedAuditKeysKeepTheOldOnes(t *testing.T) {
	t.Parallel()
	k := Generate()
	derived, _ := k.AuditSeeds()
	k.RotateAudit()
	k.RotateAudit()
	b, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	seeds, err := got.AuditSeeds()
	if err != nil || len(seeds) != 3 || got.Audit[0].ID != 2 || got.Audit[1].ID != 1 || !bytes.Equal(seeds[0], k.Audit[0].Key) || !bytes.Equal(seeds[2], derived[0]) {
		t.Fatalf("%d seeds, %v", len(seeds), err)
	}
	got.Audit[0].ID = 1
	if err := got.check(); err == nil || !strings.Contains(err.Error(), "audit: key 1") {
		t.Errorf("an id twice: %v", err)
	}
	got.Audit[0].ID, got.Audit[0].Key = 2, got.Audit[0].Key[1:]
	if err := got.check(); err == nil || !strings.Contains(err.Error(), "audit: key 2") {
		t.Errorf("a short key: %v", err)
	}
}
