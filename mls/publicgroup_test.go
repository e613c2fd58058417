package mls

import (
	"bytes"
	"errors"
	"testing"
)

func TestPublicGroupRefuses(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a := peers[0]
	follower, err := NewPublicGroup(mustGroupInfo(t, a), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(follower.GroupID(), a.GroupID()) || !bytes.Equal(follower.RatchetTree(), a.RatchetTree()) ||
		follower.Context().Epoch != 1 || len(follower.Members()) != 3 {
		t.Error("the follower sees another group")
	}
	commit := mustParse(t, a.mustCommit(t, CommitOptions{ForcePath: true}).Commit).PublicMessage
	proposal, err := peers[1].Propose(ProposeOptions{Update: true})
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(*authenticatedContent)) *PublicMessage {
		m := *commit
		f(&m.auth)
		return &m
	}
	tests := []struct {
		name string
		m    *PublicMessage
		want error
	}{
		{"other group", edit(func(a *authenticatedContent) { a.content.groupID = []byte("x") }), ErrWrongGroup},
		{"past epoch", edit(func(a *authenticatedContent) { a.content.epoch-- }), ErrPastEpoch},
		{"future epoch", edit(func(a *authenticatedContent) { a.content.epoch++ }), ErrFutureEpoch},
		{"other sender", edit(func(a *authenticatedContent) { a.content.sender.Leaf = 1 }), ErrSignature},
		{"no confirmation tag", edit(func(a *authenticatedContent) { a.confirmationTag = nil }), ErrConfirmationTag},
		{"application", edit(func(a *authenticatedContent) { a.content.contentType = ContentApplication }), ErrInvalidMessage},
		{"proposal", mustParse(t, proposal).PublicMessage, nil},
		{"proposal again", mustParse(t, proposal).PublicMessage, ErrReplay},
		{"commit", commit, nil},
		{"commit again", commit, ErrPastEpoch},
	}
	for _, tt := range tests {
		before, err := follower.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := follower.Process(tt.m, testNow); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		after, err := follower.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(before, after) != (tt.want != nil) {
			t.Errorf("%s: state changed: %v", tt.name, !bytes.Equal(before, after))
		}
	}
}

func TestPublicGroupStopsAtReInit(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	follower, err := NewPublicGroup(mustGroupInfo(t, peers[0]), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	last := peers[0].mustCommit(t, CommitOptions{ReInit: &ReInit{GroupID: []byte("x"), Version: 1, CipherSuite: 1}})
	got, err := follower.Process(mustParse(t, last.Commit).PublicMessage, testNow)
	if err != nil || got.ReInit == nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := follower.Process(mustParse(t, last.Commit).PublicMessage, testNow); !errors.Is(err, ErrRemoved) {
		t.Errorf("got %v, want ErrRemoved", err)
	}
}

func TestVerifyGroupInfo(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a := peers[0]
	follower, err := NewPublicGroup(mustGroupInfo(t, a), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*GroupInfo)
		sign   bool
		want   error
	}{
		{"as it is", func(*GroupInfo) {}, false, nil},
		{"without the tree", func(gi *GroupInfo) { gi.Extensions = nil }, true, nil},
		{"not signed", func(gi *GroupInfo) { gi.Signature = nil }, false, ErrSignature},
		{"no such signer", func(gi *GroupInfo) { gi.Signer = 3 }, true, ErrInvalidWelcome},
		{"another signer", func(gi *GroupInfo) { gi.Signer = 1 }, true, ErrSignature},
		{"another epoch", func(gi *GroupInfo) { gi.GroupContext.Epoch++ }, true, ErrInvalidWelcome},
		{"another tag", func(gi *GroupInfo) { gi.ConfirmationTag = make([]byte, 32) }, true, ErrInvalidWelcome},
		{"another tree", func(gi *GroupInfo) { gi.Extensions[0].Data = gi.Extensions[0].Data[1:] }, true, ErrInvalidTree},
	}
	for _, tt := range tests {
		gi := mustGroupInfo(t, a)
		tt.change(gi)
		if tt.sign {
			gi.sign(a.signer)
		}
		if err := follower.VerifyGroupInfo(gi); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}
