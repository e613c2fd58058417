// Package tsmls lets the npm package ts-mls take part in the interop scenarios, as a
// node process.
package tsmls

import (
	"context"
	"io"
	"path/filepath"

	"quicproquo.dev/test/interop"
	"quicproquo.dev/test/interop/node"
)

// Name is what the engine is called.
const Name = "ts-mls"

// Engine makes members that are played by one node process.
type Engine struct{ process *node.Process }

// Install makes sure that ts-mls is installed; see node.Install.
func Install(ctx context.Context, progress io.Writer) (string, error) {
	return node.Install(ctx, node.Folder("peer"), progress)
}

// NewEngine starts a process with the ts-mls of the directory that Install returned.
func NewEngine(dir string) (*Engine, error) {
	p, err := node.Start(filepath.Join(node.Folder("peer"), "peer.mjs"), dir)
	if err != nil {
		return nil, err
	}
	return &Engine{process: p}, nil
}

// Close ends the process.
func (e *Engine) Close() error { return e.process.Close() }

// Name implements interop.Engine.
func (*Engine) Name() string { return Name }

// NewMember implements interop.Engine. A name that was used before makes a new client
// in place of the earlier one.
func (e *Engine) NewMember(id string) (interop.Member, error) {
	m := &member{process: e.process, id: id}
	return m, m.call("new", nil, nil)
}

type member struct {
	process *node.Process
	id      string
}

// args are the fields of a request besides op and member.
type args map[string]any

func (m *member) call(op string, a args, result any) error {
	request := map[string]any{"op": op, "member": m.id}
	for k, v := range a {
		request[k] = v
	}
	return m.process.Call(request, result)
}

func (m *member) bytes(op string, a args) ([]byte, error) {
	var b []byte
	err := m.call(op, a, &b)
	return b, err
}

func (m *member) AddPSK(id, secret []byte) error {
	return m.call("addPSK", args{"id": id, "secret": secret}, nil)
}

func (m *member) KeyPackage() ([]byte, error) { return m.bytes("keyPackage", nil) }

func (m *member) Create(groupID []byte) error {
	return m.call("create", args{"groupID": groupID}, nil)
}

func (m *member) Join(welcome, tree []byte) error {
	return m.call("join", args{"welcome": welcome, "tree": tree}, nil)
}

func (m *member) JoinExternal(groupInfo []byte, o interop.ExternalOptions) ([]byte, error) {
	if _, err := m.KeyPackage(); err != nil { // its API takes the leaf from one
		return nil, err
	}
	return m.bytes("joinExternal", args{"groupInfo": groupInfo, "tree": o.Tree, "resync": o.Resync, "asIs": o.AsIs})
}

func (m *member) ProposeJoin(groupInfo []byte) ([]byte, error) {
	return m.bytes("proposeJoin", args{"groupInfo": groupInfo})
}

func (m *member) Commit(c interop.Commit) (interop.Committed, error) {
	var out interop.Committed
	err := m.call("commit", args{
		"adds": c.Adds, "removes": c.Removes, "psks": c.PSKs, "resumptionPSK": c.ResumptionPSK,
		"extensions": c.Extensions, "reInit": c.ReInit, "private": c.Private, "noTree": c.NoTree,
	}, &out)
	return out, err
}

func (m *member) Propose(p interop.Proposal) ([]byte, error) {
	if p.Update {
		return nil, interop.Cannot(Name, "its API makes no Update, and its state keeps no private key for one")
	}
	return m.bytes("propose", args{
		"add": p.Add, "remove": p.Remove, "psk": p.PSK, "extensions": p.Extensions, "reInit": p.ReInit,
		"private": p.Private,
	})
}

func (m *member) Process(message []byte) ([]byte, error) {
	return m.bytes("process", args{"message": message})
}

func (m *member) Encrypt(text []byte, padding int) ([]byte, error) {
	return m.bytes("encrypt", args{"text": text, "padding": padding})
}

func (m *member) GroupInfo(o interop.GroupInfoOptions) ([]byte, error) {
	return m.bytes("groupInfo", args{"noTree": o.NoTree, "asIs": o.AsIs})
}

func (m *member) Tree() ([]byte, error) { return m.bytes("tree", nil) }

func (m *member) State() (interop.State, error) {
	var s interop.State
	err := m.call("state", args{
		"label": interop.ExportLabel, "context": interop.ExportContext, "length": interop.ExportLength,
	}, &s)
	return s, err
}
