package mls

import (
	"bytes"
	"crypto/ed25519"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// This file is the member that the crash tests kill: the test binary, started
// again, in a process of its own. It keeps everything in one file, as a keystore
// does, and does what the test asks for over standard input; whatever leaves it
// goes to standard output. See crash_test.go for the other side.

const crashEnv = "MLS_CRASH_MEMBER"

// The ways in which the member can break the contract of the package, for the
// tests that show that the crash test notices.
const (
	faultNone      = ""
	faultSendFirst = "send before saving"
	faultNoSave    = "do not save what was processed"
	faultInPlace   = "write the file in place"
	faultBackup    = "keep the file before"
)

type crashConfig struct {
	Dir    string
	Name   string
	Signer ed25519.PrivateKey
	Fault  string
	// FaultAt is the kind of event that faultSendFirst is about.
	FaultAt string
	// StopAt is the point, counted from 1, at which the member waits to be killed.
	StopAt int
}

type crashRequest struct {
	Op          string
	Config      crashConfig
	From        int // index of the first entry, or the cursor after a Welcome
	Entries     [][]byte
	Data        []byte // a Welcome or a GroupInfo
	KeyPackages [][]byte
	Removes     []LeafIndex
	Resync      []LeafIndex // at most one
	Texts       []string
	Keep        bool // sent messages stay in the outbox until they are in the log
}

type crashEvent struct {
	Kind    string // ready, point, sent, commit, keypackage, read, done, failed
	Message []byte
	Welcome []byte
	Text    string
	Index   int
	Status  crashStatus
}

// crashStatus is what the member tells of itself.
type crashStatus struct {
	InGroup, Active, Pending, Joining bool
	Epoch                             uint64
	Authenticator                     []byte
	Cursor, Bundles                   int
}

// crashDisk is the one file.
type crashDisk struct {
	Cursor     int    // of the log
	Since      uint64 // the epoch in which the group was entered
	Group      []byte
	Pending    []byte
	JoinCommit []byte // of an external join that was not accepted yet
	JoinGroup  []byte
	Bundles    [][]byte
	Outbox     [][]byte
	Read       []int // indexes of the application messages that were decrypted
}

func (d *crashDisk) encode() ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(d)
	return b.Bytes(), err
}

func decodeCrashDisk(b []byte) (d crashDisk, err error) {
	err = gob.NewDecoder(bytes.NewReader(b)).Decode(&d)
	return d, err
}

const (
	crashFile   = "state"
	crashTemp   = "state.tmp"
	crashBackup = "state.old"
)

// crashMember is the member inside its process.
type crashMember struct {
	crashConfig
	in      *gob.Decoder
	out     *gob.Encoder
	points  int
	disk    crashDisk
	group   *Group
	pending *PendingCommit
}

// TestCrashMember is not a test: it is the process that the crash tests start.
func TestCrashMember(*testing.T) {
	if os.Getenv(crashEnv) == "" {
		return
	}
	m := &crashMember{in: gob.NewDecoder(os.Stdin), out: gob.NewEncoder(os.Stdout)}
	for {
		var r crashRequest
		if err := m.in.Decode(&r); err != nil {
			os.Exit(0) // the test is over
		}
		if err := m.do(&r); err != nil {
			m.emit(crashEvent{Kind: "failed", Text: err.Error()})
			os.Exit(0)
		}
		kind := "done"
		if r.Op == "start" {
			kind = "ready"
		}
		m.emit(crashEvent{Kind: kind, Status: m.status()})
	}
}

func (m *crashMember) emit(e crashEvent) {
	if err := m.out.Encode(e); err != nil {
		os.Exit(0)
	}
}

// point is a place where the process may be killed on purpose.
func (m *crashMember) point(name string) {
	m.points++
	if m.points != m.StopAt {
		return
	}
	m.emit(crashEvent{Kind: "point", Text: name})
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func (m *crashMember) status() crashStatus {
	s := crashStatus{
		Pending: m.pending != nil, Joining: m.disk.JoinCommit != nil,
		Cursor: m.disk.Cursor, Bundles: len(m.disk.Bundles),
	}
	if g := m.group; g != nil {
		s.InGroup, s.Active, s.Epoch, s.Authenticator = true, g.Active(), g.Epoch(), g.EpochAuthenticator()
	}
	return s
}

func (m *crashMember) do(r *crashRequest) error {
	switch r.Op {
	case "start":
		m.crashConfig = r.Config
		return m.load()
	case "create":
		return m.create()
	case "keypackage":
		return m.keyPackage()
	case "join":
		return m.join(r)
	case "external":
		return m.external(r)
	case "sync":
		return m.sync(r)
	case "encrypt":
		return m.encrypt(r)
	case "propose":
		return m.propose()
	case "commit":
		return m.commit(r)
	}
	return fmt.Errorf("no such request: %s", r.Op)
}

// load reads the file, and sends again what it cannot know to have arrived.
func (m *crashMember) load() error {
	m.point("started")
	if err := os.Remove(filepath.Join(m.Dir, crashTemp)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := os.ReadFile(filepath.Join(m.Dir, crashFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if m.disk, err = decodeCrashDisk(b); err != nil {
		return fmt.Errorf("the file does not load: %w", err)
	}
	if err := m.loadGroup(); err != nil {
		return err
	}
	for _, b := range m.disk.Outbox {
		m.send("sent", b, nil)
	}
	if m.pending != nil {
		m.send("commit", m.pending.Commit, m.pending.Welcome)
	}
	if m.disk.JoinCommit != nil {
		m.send("commit", m.disk.JoinCommit, nil)
	}
	return nil
}

func (m *crashMember) loadGroup() (err error) {
	if m.disk.Group == nil {
		return nil
	}
	if m.group, err = UnmarshalGroup(m.disk.Group, m.Signer, nil); err != nil {
		return err
	}
	if m.disk.Pending != nil {
		m.pending, err = m.group.UnmarshalPendingCommit(m.disk.Pending)
	}
	return err
}

func (m *crashMember) send(kind string, message, welcome []byte) {
	m.emit(crashEvent{Kind: kind, Message: message, Welcome: welcome})
	m.point("sent")
}

// saveThen saves, and lets the effects out afterwards.
func (m *crashMember) saveThen(effects ...crashEvent) error {
	release := func() {
		for _, e := range effects {
			m.emit(e)
			m.point("sent")
		}
	}
	if m.Fault == faultSendFirst && len(effects) > 0 && effects[0].Kind == m.FaultAt {
		release()
		return m.save()
	}
	if err := m.save(); err != nil {
		return err
	}
	release()
	return nil
}

func (m *crashMember) save() error {
	m.point("before saving")
	if err := m.collect(); err != nil {
		return err
	}
	b, err := m.disk.encode()
	if err != nil {
		return err
	}
	path := filepath.Join(m.Dir, crashFile)
	if m.Fault == faultInPlace {
		return m.write(path, b)
	}
	if m.Fault == faultBackup {
		_ = os.Remove(filepath.Join(m.Dir, crashBackup))
		_ = os.Link(path, filepath.Join(m.Dir, crashBackup))
	}
	temp := filepath.Join(m.Dir, crashTemp)
	if err := m.write(temp, b); err != nil {
		return err
	}
	m.point("before renaming")
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	m.point("renamed")
	dir, err := os.Open(m.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return err
	}
	m.point("saved")
	return nil
}

func (m *crashMember) collect() (err error) {
	m.disk.Group, m.disk.Pending = nil, nil
	if m.group != nil {
		if m.disk.Group, err = m.group.MarshalBinary(); err != nil {
			return err
		}
	}
	if m.pending != nil {
		m.disk.Pending, err = m.pending.MarshalBinary()
	}
	return err
}

func (m *crashMember) write(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	m.point("file created")
	if _, err := f.Write(b[:len(b)/2]); err != nil {
		return err
	}
	m.point("half written")
	if _, err := f.Write(b[len(b)/2:]); err != nil {
		return err
	}
	m.point("written")
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func (m *crashMember) create() error {
	g, err := CreateGroup(GroupOptions{
		GroupID: []byte("group"), Credential: BasicCredential([]byte(m.Name)), Signer: m.Signer,
	})
	if err != nil {
		return err
	}
	m.group = g
	return m.saveThen()
}

func (m *crashMember) keyPackage() error {
	p := &peer{name: m.Name, signer: m.Signer}
	b, err := NewKeyPackage(p.options())
	if err != nil {
		return err
	}
	saved, err := b.MarshalBinary()
	if err != nil {
		return err
	}
	m.disk.Bundles = append(m.disk.Bundles, saved)
	public, err := b.KeyPackage().MarshalMessage()
	if err != nil {
		return err
	}
	return m.saveThen(crashEvent{Kind: "keypackage", Message: public})
}

func (m *crashMember) join(r *crashRequest) error {
	welcome, err := ParseMessage(r.Data)
	if err != nil {
		return err
	}
	for i, saved := range m.disk.Bundles {
		b, err := UnmarshalKeyPackageBundle(saved)
		if err != nil {
			return err
		}
		if !welcome.Welcome.Includes(b.KeyPackage().Ref()) {
			continue
		}
		if m.group, err = JoinGroup(welcome.Welcome, b, m.Signer, JoinOptions{}); err != nil {
			return err
		}
		m.disk.Bundles = slices.Delete(m.disk.Bundles, i, i+1)
		m.disk.Cursor, m.disk.Since = r.From, m.group.Epoch()
		m.forget()
		return m.saveThen()
	}
	return fmt.Errorf("%w: the bundle of the Welcome is lost", ErrNotAddressed)
}

// forget drops what was prepared and did not come about.
func (m *crashMember) forget() {
	m.pending, m.disk.JoinCommit, m.disk.JoinGroup = nil, nil, nil
}

// beaten drops what another Commit was faster than.
func (m *crashMember) beaten(commit *Message) error {
	m.pending = nil
	if m.disk.JoinCommit == nil {
		return nil
	}
	own, err := ParseMessage(m.disk.JoinCommit)
	if err == nil && commit.PublicMessage.Epoch() >= own.PublicMessage.Epoch() {
		m.forget()
	}
	return err
}

func isCommit(m *Message) bool {
	return m.PublicMessage != nil && m.PublicMessage.ContentType() == ContentCommit
}

func (m *crashMember) external(r *crashRequest) error {
	gi, err := ParseMessage(r.Data)
	if err != nil {
		return err
	}
	o := ExternalJoinOptions{Credential: BasicCredential([]byte(m.Name)), Signer: m.Signer}
	if len(r.Resync) > 0 {
		o.Resync = &r.Resync[0]
	}
	j, err := JoinExternal(gi.GroupInfo, o)
	if err != nil {
		return err
	}
	if m.disk.JoinGroup, err = j.Group.MarshalBinary(); err != nil {
		return err
	}
	m.disk.JoinCommit = j.Commit
	return m.saveThen(crashEvent{Kind: "commit", Message: j.Commit})
}

func (m *crashMember) encrypt(r *crashRequest) error {
	for _, text := range r.Texts {
		b, err := m.group.Encrypt([]byte(text), nil, 0)
		if err != nil {
			return err
		}
		m.point("encrypted")
		if r.Keep {
			m.disk.Outbox = append(m.disk.Outbox, b)
		}
		if err := m.saveThen(crashEvent{Kind: "sent", Message: b}); err != nil {
			return err
		}
	}
	return nil
}

func (m *crashMember) propose() error {
	b, err := m.group.Propose(ProposeOptions{Update: true})
	if err != nil {
		return err
	}
	return m.saveThen(crashEvent{Kind: "proposal", Message: b})
}

func (m *crashMember) commit(r *crashRequest) error {
	o := CommitOptions{Removes: r.Removes, AcceptTime: testNow, ForcePath: len(r.KeyPackages) == 0}
	for _, b := range r.KeyPackages {
		kp, err := ParseMessage(b)
		if err != nil {
			return err
		}
		o.Adds = append(o.Adds, kp.KeyPackage)
	}
	c, err := m.group.Commit(o)
	if err != nil {
		return err
	}
	m.point("committed")
	m.pending = c
	return m.saveThen(crashEvent{Kind: "commit", Message: c.Commit, Welcome: c.Welcome})
}

// sync takes the next entries of the log, saves once, and then reports.
func (m *crashMember) sync(r *crashRequest) error {
	var effects []crashEvent
	for i, b := range r.Entries {
		index := r.From + i
		if index != m.disk.Cursor {
			return fmt.Errorf("entry %d, but the cursor is at %d", index, m.disk.Cursor)
		}
		text, read, err := m.take(b)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		m.disk.Cursor++
		if read {
			m.disk.Read = append(m.disk.Read, index)
			effects = append(effects, crashEvent{Kind: "read", Index: index, Text: text})
		}
		m.point("processed")
	}
	if m.Fault == faultNoSave {
		for _, e := range effects {
			m.emit(e)
		}
		m.point("reported")
		return nil
	}
	return m.saveThen(effects...)
}

// take processes one entry of the log.
func (m *crashMember) take(b []byte) (text string, read bool, err error) {
	switch {
	case m.pending != nil && bytes.Equal(b, m.pending.Commit):
		err := m.group.Merge(m.pending)
		m.point("merged")
		m.forget()
		return "", false, err
	case m.disk.JoinCommit != nil && bytes.Equal(b, m.disk.JoinCommit):
		m.group, err = UnmarshalGroup(m.disk.JoinGroup, m.Signer, nil)
		if err == nil {
			m.disk.Since = m.group.Epoch()
		}
		m.forget()
		return "", false, err
	}
	m.disk.Outbox = slices.DeleteFunc(m.disk.Outbox, func(o []byte) bool { return bytes.Equal(o, b) })
	msg, err := ParseMessage(b)
	if err != nil {
		return "", false, err
	}
	if isCommit(msg) {
		if err := m.beaten(msg); err != nil {
			return "", false, err
		}
	}
	if m.group == nil {
		return "", false, nil
	}
	got, err := m.group.Process(msg, testNow)
	if err != nil {
		return "", false, m.excuse(msg, err)
	}
	return string(got.Data), got.Kind == Application, nil
}

// excuse returns nil for errors that an honest member meets: own messages come
// back to it, late ones are of epochs that are over, and after a removal nothing
// that follows concerns it.
func (m *crashMember) excuse(msg *Message, err error) error {
	switch {
	case !m.group.Active() && errors.Is(err, ErrFutureEpoch), errors.Is(err, ErrOwnMessage) && !isCommit(msg):
		return nil
	case errors.Is(err, ErrPastEpoch) && msg.PrivateMessage != nil:
		if e := msg.PrivateMessage.Epoch; e < m.disk.Since || e+maxPastEpochs < m.group.Epoch() {
			return nil
		}
	}
	return err
}
